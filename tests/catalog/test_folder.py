"""A folder of good and bad catalogues, read by the loader and by a JSON Schema validator.

Each bad one lists in its first lines (`#! line: path: message remedy`) the problems to report. `# only the loader
can know` marks mistakes that no JSON Schema sees: YAML itself, keys written twice, and Python objects.
"""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from flask_webhooks.bindings import open_catalog
from flask_webhooks.catalog import examine, json_schema, load
from flask_webhooks.catalog.yaml_reader import Report, compose, plain
from flask_webhooks.errors import CatalogError

HERE = Path(__file__).parent
BAD = sorted((HERE / "bad").glob("*.yaml"))
GOOD = sorted((HERE / "good").glob("*.yaml"))
SHIPPED = HERE.parents[1] / "flask_webhooks" / "catalog.schema.json"
LOADER_ONLY = "# only the loader can know"


def as_json(path: Path) -> object:
    report = Report(path.name)
    root = compose(path.read_text(encoding="utf-8"), report)
    return plain(root, "", report) if root is not None else None


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(json.loads(SHIPPED.read_text(encoding="utf-8")))


def test_there_are_enough_of_each() -> None:
    structural = [path for path in BAD if LOADER_ONLY not in path.read_text(encoding="utf-8")]
    assert len(structural) >= 40
    assert len(BAD) - len(structural) >= 30
    assert len(GOOD) >= 4


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_each_bad_catalogue_has_exactly_its_problems(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    expected = [line.removeprefix("#! ") for line in text.splitlines() if line.startswith("#! ")]
    assert expected, "says nothing of what is wrong with it"
    with pytest.raises(CatalogError) as caught:
        open_catalog(path.name, root=path.parent)
    assert {problem.file for problem in caught.value.problems} == {path.name}
    assert [str(problem).removeprefix(f"{path.name}:") for problem in caught.value.problems] == expected


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_editor_refuses_what_the_text_alone_shows(
    path: Path, validator: jsonschema.Draft202012Validator
) -> None:
    refused = not validator.is_valid(as_json(path))
    if LOADER_ONLY not in path.read_text(encoding="utf-8"):
        assert examine(path.name, root=path.parent)[1], "the loader finds it only with Python objects"
        assert refused
    elif as_json(path) is not None:
        assert not refused


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_good_one_is_read_bound_and_accepted_by_the_editor(
    path: Path, validator: jsonschema.Draft202012Validator
) -> None:
    assert [error.message for error in validator.iter_errors(as_json(path))] == []
    catalog, bound = open_catalog(path.name, root=path.parent)
    assert load(path.name, root=path.parent) == catalog
    assert bound.keys() == catalog.channels.keys()


def test_shipped_schema_is_the_one_of_the_format() -> None:
    """Update it with `python -m flask_webhooks.catalog > flask_webhooks/catalog.schema.json`."""
    assert json.loads(SHIPPED.read_text(encoding="utf-8")) == json.loads(json.dumps(json_schema()))


def test_shipped_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


def test_eleven_mistakes_are_reported_at_once() -> None:
    folder = HERE / "bad"
    with pytest.raises(CatalogError) as caught:
        open_catalog("eleven_mistakes.yaml", root=folder)
    problems = caught.value.problems
    assert len(problems) == 11
    lines = (folder / "eleven_mistakes.yaml").read_text(encoding="utf-8").splitlines()
    for problem, word in zip(
        problems,
        "titel retry Invoicee form sent touches owner ignore produkt exclusive pay-runs".split(),
        strict=True,
    ):
        assert word in lines[problem.line - 1]
    assert str(caught.value).startswith("The webhook catalogue has 11 mistakes:\n  eleven_mistakes.yaml:")
