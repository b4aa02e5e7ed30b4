"""Random files: each gives a catalogue or a CatalogError, and the editor's JSON Schema agrees."""

from __future__ import annotations

import functools
import json
import tempfile
import typing as t
from pathlib import Path

import jsonschema
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flask_webhooks.catalog import examine, json_schema, load
from flask_webhooks.errors import CatalogError

WORDS = (
    "version title defaults channels label description model schema owner events includes touches exclusive "
    "format formats retry ignore message on when transition deprecated sample from to changed reason replacement "
    "path created updated deleted emit paid status shop:Invoice client.business_id invoices webhooks x-note {label} "
    "standard none channel subscription a.b <<"
).split()
scalars = st.one_of(
    st.sampled_from(WORDS),
    st.none(),
    st.booleans(),
    st.integers(-2, 5),
    st.floats(0, 9, width=16),
    st.just(""),
)
anything = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(WORDS), inner, max_size=4)
    ),
    max_leaves=12,
)


def mapping(**values: st.SearchStrategy[t.Any]) -> st.SearchStrategy[dict[str, t.Any]]:
    """Mostly what belongs there, sometimes anything at all."""
    loose = {key.rstrip("_"): st.one_of(value, value, value, anything) for key, value in values.items()}
    return st.fixed_dictionaries({}, optional=loose)


names = st.sampled_from(["created", "updated", "deleted", "paid", "SUBMITTED", "not one"])
condition = st.one_of(scalars, st.lists(scalars, max_size=2), mapping(from_=scalars, to=scalars))
event = mapping(
    on=st.sampled_from(["created", "updated", "emit", ["created", "updated"], ["deleted"]]),
    when=st.dictionaries(st.sampled_from(["status", "changed"]), condition, max_size=2),
    ignore=st.just(["updated_at"]),
    transition=st.just("PAY"),
    message=st.sampled_from(["{label} paid.", "{lable}", "{{"]),
    sample=anything,
)
channel = mapping(
    model=st.just("shop:Invoice"),
    fields=st.sampled_from([["status"], ["statu"], []]),
    exclude=st.just(["status"]),
    public=st.just(["status"]),
    data=st.sampled_from(["to_dict", "not one"]),
    events=st.one_of(st.lists(names, max_size=3), st.dictionaries(names, st.none() | event, max_size=3)),
    includes=st.sampled_from([["lines"], {"buyer": "client", "lines": None}, ["changes"]]),
    touches=st.just(["client"]),
    exclusive=st.sampled_from([True, False, "owner"]),
    retry=st.sampled_from(["none", [1, 1], []]),
)
document = st.fixed_dictionaries(
    {
        "version": st.just(1),
        "channels": st.dictionaries(st.sampled_from(["a", "b_1", "c-d"]), channel, max_size=2),
    },
    optional={"defaults": mapping(format=st.just("slack"), owner=st.just("a.b"), ignore=st.just(["x"]))},
)


@functools.cache
def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json_schema())


def read(text: str) -> tuple[object, list[str]]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "webhooks.yaml").write_text(text, encoding="utf-8", newline="")
        catalog, problems = examine("webhooks.yaml", root=Path(folder))
        try:
            loaded, refused = load("webhooks.yaml", root=Path(folder)), []
        except CatalogError as error:
            loaded, refused = catalog, list(error.problems)
    assert loaded == catalog
    assert refused == problems
    lines = len(text.splitlines()) + 2
    for problem in problems:
        assert 1 <= problem.line <= lines
        assert problem.file == "webhooks.yaml"
        assert problem.path
        assert problem.message
    return catalog, [str(problem) for problem in problems]


@given(st.one_of(document, document, anything))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_loader_and_editor_agree(value: t.Any) -> None:
    _, problems = read(json.dumps(value))
    if value is None:  # an empty document, of which the editor says nothing
        return
    assert bool(problems) is not validator().is_valid(value), problems


@given(st.one_of(document, anything))
@settings(max_examples=100, deadline=None)
def test_block_style_says_the_same_as_flow_style(value: t.Any) -> None:
    flow = read(json.dumps(value))
    block = read(yaml.safe_dump(value, sort_keys=False, allow_unicode=True))
    assert flow[0] == block[0]
    assert len(flow[1]) == len(block[1])


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text(text: str) -> None:
    read(text)


@given(
    st.lists(
        st.sampled_from(
            [
                "&a",
                "*a",
                "<<",
                ": ",
                "- ",
                "\n",
                "  ",
                "{",
                "}",
                "[",
                "]",
                ",",
                "!!int",
                "? ",
                "version",
                "channels",
                "events",
                "1",
                '"',
                "'",
                "#",
                "|",
                "---",
                "\t",
                "~",
            ]
        )
    )
)
@settings(max_examples=400, deadline=None)
def test_any_yaml_like_text(parts: list[str]) -> None:
    read("".join(parts))


def test_deep_and_multiplied_nesting() -> None:
    read("[" * 5000)
    read("version: 1\nchannels: " + "{a: " * 3000 + "1" + "}" * 3000)
    levels = "\n".join(f"    l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 10))
    use = "channels:\n  jobs: {events: {done: {sample: {a: *l9}}}}\n"
    bomb = f"version: 1\nx-bomb:\n    l0: &l0 boom\n{levels}\n{use}"
    _, problems = read(bomb)
    assert ["too deep or too large" in problem for problem in problems] == [True]
