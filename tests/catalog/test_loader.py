"""The loader: sources, merging, defaults, and the resulting catalogue."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from flask_webhooks.catalog import Catalog, Deprecation, Kind, Scope, load
from flask_webhooks.errors import CatalogError

Write = t.Callable[..., Path]
HERE = Path(__file__).parent
JOBS = "version: 1\ntitle: Jobs\nchannels:\n  jobs: {events: [done]}\n"
TASKS = "version: 1\ntitle: Tasks\nchannels:\n  tasks: {events: [done]}\n"


@pytest.fixture(scope="module")
def everything() -> Catalog:
    return load("everything.yaml", root=HERE / "good")


def problems_of(sources: t.Any, root: Path) -> list[str]:
    with pytest.raises(CatalogError) as caught:
        load(sources, root=root)
    return [str(problem) for problem in caught.value.problems]


# Sources


def test_single_source_needs_no_list(write: Write) -> None:
    assert list(load("webhooks.yaml", root=write(JOBS)).events) == ["jobs.done"]


def test_several_files_make_one_catalogue(write: Write) -> None:
    write(JOBS, "jobs.yaml")
    root = write(TASKS, "tasks.yaml")
    catalog = load(["jobs.yaml", root / "tasks.yaml"], root=root)
    assert list(catalog.events) == ["jobs.done", "tasks.done"]
    assert catalog.title == "Jobs"
    assert catalog.where("channels.tasks.events") == (str(root / "tasks.yaml"), 4)


def test_package_resource(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(JOBS)
    (root / "catalog_of_a_package").mkdir()
    (root / "catalog_of_a_package" / "__init__.py").touch()
    (root / "catalog_of_a_package" / "deep").mkdir()
    (root / "catalog_of_a_package" / "deep" / "jobs.yaml").write_text(JOBS, encoding="utf-8")
    monkeypatch.syspath_prepend(root)
    catalog = load("catalog_of_a_package:deep/jobs.yaml", root=Path("/"))
    assert list(catalog.events) == ["jobs.done"]


def test_entry_point(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(JOBS, "jobs.yaml")
    (root / "package_with_entry").mkdir()
    (root / "package_with_entry" / "__init__.py").touch()
    (root / "package_with_entry" / "jobs.yaml").write_text(JOBS, encoding="utf-8")
    info = root / "package_with_entry-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: package-with-entry\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[flask_webhooks.catalogs]\njobs-of-ours = package_with_entry:jobs.yaml\n"
    )
    monkeypatch.syspath_prepend(root)
    assert list(load("jobs-of-ours", root=root).events) == ["jobs.done"]
    (root / "jobs-of-ours").write_text(TASKS, encoding="utf-8")
    assert "jobs" not in load("jobs-of-ours", root=root).channels, "a file of that name comes first"
    (root / "jobs-of-ours").unlink()
    assert problems_of("jobs-of-our", root) == [
        "jobs-of-our:1: (document): is neither a file nor a registered catalogue. "
        'Did you mean "jobs-of-ours"?'
    ]


def test_missing_file_names_a_similar_one(write: Write) -> None:
    root = write(JOBS)
    assert problems_of("webhook.yaml", root) == [
        'webhook.yaml:1: (document): cannot be read: No such file or directory. Did you mean "webhooks.yaml"?'
    ]


def test_missing_file_says_where_it_looked(tmp_path: Path) -> None:
    [said] = problems_of("webhooks.yaml", tmp_path)
    assert str(tmp_path / "webhooks.yaml") in said


def test_missing_package(tmp_path: Path) -> None:
    [said] = problems_of("no_such_package_here:jobs.yaml", tmp_path)
    assert "is it installed, with its data files?" in said


def test_folder_instead_of_a_file(tmp_path: Path) -> None:
    [said] = problems_of(".", tmp_path)
    assert "cannot be read: Is a directory." in said


def test_other_encodings(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("version: 1\n# caf\xe9\n".encode("latin-1"))
    assert problems_of("latin.yaml", tmp_path) == [
        "latin.yaml:2: (document): is not UTF-8. Save the file as UTF-8."
    ]
    (tmp_path / "bom.yaml").write_bytes(JOBS.encode("utf-8-sig"))
    assert list(load("bom.yaml", root=tmp_path).events) == ["jobs.done"]


def test_problems_of_all_sources_are_reported_together(write: Write) -> None:
    write(JOBS.replace("events", "evnts"), "jobs.yaml")
    root = write(TASKS.replace("title", "titel"), "tasks.yaml")
    said = problems_of(["jobs.yaml", "nowhere/at.yaml", "tasks.yaml"], root)
    assert [problem.partition(":")[0] for problem in said] == ["jobs.yaml"] * 2 + [
        "nowhere/at.yaml",
        "tasks.yaml",
    ]


# Merging


def test_clash_names_both_places(write: Write) -> None:
    write(JOBS, "jobs.yaml")
    root = write(JOBS, "more.yaml")
    assert problems_of(["jobs.yaml", "more.yaml"], root) == [
        "more.yaml:4: channels.jobs: is declared before, in jobs.yaml:4. "
        "Rename one of the two, or put their events together."
    ]


def test_defaults_are_those_of_their_own_file(write: Write) -> None:
    write(JOBS.replace("title: Jobs", "defaults: {retry: none, format: minimal}"), "jobs.yaml")
    root = write(TASKS, "tasks.yaml")
    catalog = load(["jobs.yaml", "tasks.yaml"], root=root)
    assert (catalog.events["jobs.done"].retry, catalog.events["jobs.done"].format) == ("none", "minimal")
    assert (catalog.events["tasks.done"].retry, catalog.events["tasks.done"].format) == (None, "channel")


def test_replacement_may_be_in_another_file(write: Write) -> None:
    old = "version: 1\nchannels:\n  jobs: {events: {done: {deprecated: {reason: Old., replacement: tasks.done}}}}\n"
    write(old, "jobs.yaml")
    root = write(TASKS, "tasks.yaml")
    assert load(["jobs.yaml", "tasks.yaml"], root=root).events["jobs.done"].deprecated == Deprecation(
        "Old.", "tasks.done"
    )


# What is made of it


def test_names_and_texts_that_are_not_written(write: Write) -> None:
    text = (
        "version: 1\nchannels:\n  pay_runs: {events: [created, not_paid]}\n  Invoice: {events: [SUBMITTED]}\n"
    )
    catalog = load("webhooks.yaml", root=write(text))
    runs = catalog.channels["pay_runs"]
    assert (catalog.title, runs.title, runs.label, runs.description) == (
        "Webhooks",
        "Pay Runs",
        "Pay Run",
        "",
    )
    assert runs.events["not_paid"].message == "Pay Run not paid successfully."
    assert runs.events["not_paid"].title == "Pay Run not paid"
    assert catalog.events["Invoice.SUBMITTED"].message == "Invoice submitted successfully."


@pytest.mark.parametrize(
    ("title", "label"),
    [
        ("Business Loans", "Business Loan"),
        ("Quotes", "Quote"),
        ("Deliveries", "Delivery"),
        ("Business", "Business"),
        ("Businesses", "Business"),
        ("Boxes", "Box"),
        ("Status", "Status"),
        ("Analysis", "Analysis"),
        ("Invoice", "Invoice"),
    ],
)
def test_label_is_one_of_what_the_title_names(write: Write, title: str, label: str) -> None:
    text = f"version: 1\nchannels:\n  things: {{title: {title}, events: [done]}}\n"
    assert load("webhooks.yaml", root=write(text)).channels["things"].label == label


def test_messages(everything: Catalog) -> None:
    events = everything.channels["invoices"].events
    assert events["created"].message == "Invoices: invoices {new}"
    assert events["paid"].message == "Invoice paid."


def test_own_format_comes_first_and_nothing_twice(everything: Catalog) -> None:
    invoices = everything.channels["invoices"]
    assert (invoices.format, invoices.formats) == ("channel", ("channel", "slack", "minimal"))
    assert invoices.events["paid"].formats == ("entity", "slack", "minimal")
    assert everything.channels["clients"].formats == ("channel", "standard", "slack")
    assert everything.channels["journals"].formats == ("acme",)


def test_retry_is_the_nearest_that_is_written(everything: Catalog) -> None:
    assert everything.events["invoices.paid"].retry == "none"
    assert everything.events["invoices.created"].retry == (5.0, 5.0, 300.5)
    assert everything.events["clients.created"].retry == "standard"


def test_schema_of_the_event_before_that_of_the_channel(everything: Catalog) -> None:
    assert everything.events["invoices.paid"].schema == "shop:PaidSchema"
    assert everything.events["invoices.created"].schema == "shop:InvoiceSchema"
    assert everything.events["ledgers.created"].schema is None


def test_what_makes_events_happen(everything: Catalog) -> None:
    on = {name: event.on for name, event in everything.channels["invoices"].events.items()}
    assert on["created"] == {Kind.CREATED}
    assert on["paid"] == on["settled"] == on["moved"] == {Kind.UPDATED}
    assert on["closed"] == {Kind.CREATED, Kind.UPDATED}
    assert on["born"] == {Kind.CREATED}
    assert on["sent"] == frozenset()
    assert everything.events["ledgers.created"].on == frozenset(), "no model: your code emits it"


def test_default_ignore_is_for_updates_alone(everything: Catalog) -> None:
    events = everything.channels["invoices"].events
    assert events["created"].ignore == frozenset()
    assert events["paid"].ignore == {"updated_at"}
    assert events["updated"].ignore == {"updated_at", "due_on"}


def test_includes_exclusive_owner_sample(everything: Catalog) -> None:
    includes = everything.channels["invoices"].includes
    assert includes["positions"].path == ("lines",)
    assert includes["buyer_name"].path == ("client", "name")
    assert (includes["checker"].path, includes["checker"].schema) == (("approver",), "shop:UserSchema")
    assert everything.channels["ledgers"].exclusive is Scope.SUBSCRIPTION
    assert everything.channels["journals"].exclusive is Scope.OWNER
    assert everything.channels["transactions"].exclusive is None
    assert everything.channels["lines"].owner == ("invoice", "client", "business_id")
    assert everything.events["invoices.paid"].sample == {
        "id": 7,
        "total": "12.50",
        "lines": [],
        "due_on": "2026-01-31",
    }


def test_on_and_no_are_words(write: Write) -> None:
    catalog = load("yaml_words.yaml", root=HERE / "good")
    assert catalog.title == "on"
    assert catalog.channels["no"].title == "yes"
    assert list(catalog.events) == ["no.off", "2026.404"]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("invoice.paid", "invoices.paid"),
        ("Invoices.Paid", "invoices.paid"),
        ("invoices.payd", "invoices.paid"),
        ("ledger.created", "ledgers.created"),
        ("zzz", None),
        ("", None),
    ],
)
def test_suggest(everything: Catalog, name: str, meant: str | None) -> None:
    assert everything.suggest(name) == meant


@pytest.mark.parametrize(
    "pattern", ["nothing", "nothing.*", "invoices", "invoices.nothing", "", ".", "*.*", "*.paid"]
)
def test_unknown_patterns_expand_to_nothing(everything: Catalog, pattern: str) -> None:
    assert everything.expand(pattern) == ()


def test_where_finds_the_nearest_that_was_written(everything: Catalog) -> None:
    lines = (HERE / "good" / "everything.yaml").read_text(encoding="utf-8").splitlines()
    _, line = everything.where("channels.invoices.events.paid.when.status.to")
    assert lines[line - 1].strip().startswith("when:")
    _, line = everything.where("channels.clients.nothing.here")
    assert lines[line - 1] == "  clients:"
    assert everything.where("nowhere")[1] == 1


@pytest.mark.parametrize(
    ("channel", "said"),
    [
        ("<<: 5", '"<<" merges something that is no mapping.'),
        ("? [a]\n    : 1", "a key is a list or a mapping."),
        ("title: !!seq x", "has the tag tag:yaml.org,2002:seq."),
        ("title: !!int x", ""),
        ("title: !ours x", "has the tag !ours."),
    ],
)
def test_odd_yaml(write: Write, channel: str, said: str) -> None:
    text = f"version: 1\nchannels:\n  jobs:\n    events: [done]\n    {channel}\n"
    if not said:  # a word that claims to be a number is a word
        assert load("webhooks.yaml", root=write(text)).channels["jobs"].title == "x"
        return
    [problem] = problems_of("webhooks.yaml", write(text))
    assert problem.startswith("webhooks.yaml:5: channels.jobs")
    assert said in problem


@pytest.mark.parametrize("opening", ["[", "{a: "])
def test_brackets_without_end_do_not_end_the_process(write: Write, opening: str) -> None:
    """libyaml's composer calls itself for each, and a stack has an end."""
    root = write("version: 1\nchannels:\n  jobs: " + opening * 100_000)
    assert problems_of("webhooks.yaml", root) == [
        "webhooks.yaml:3: (document): is nested too deeply. Look for brackets that are not closed."
    ]


def test_steps_without_end_do_not_end_the_process(write: Write) -> None:
    root = write("version: 1\nx-deep: " + "\n" + "- " * 100_000)
    assert problems_of("webhooks.yaml", root) == [
        "webhooks.yaml:3: (document): is nested too deeply. Look for brackets that are not closed."
    ]


def test_many_adjacent_brackets_are_not_deep(write: Write) -> None:
    events = "".join(f"      step_{n}: {{sample: {{}}}}\n" for n in range(2000))
    root = write("version: 1\nchannels:\n  jobs:\n    events:\n" + events)
    assert len(load("webhooks.yaml", root=root).events) == 2000


def test_a_character_that_no_yaml_has(write: Write) -> None:
    root = write("version: 1\n# Bücher\nchannels: {jobs: {title: '\x07', events: [done]}}")
    assert problems_of("webhooks.yaml", root) == [
        "webhooks.yaml:3: (document): has the character U+0007, which YAML does not allow. Remove it."
    ]


def test_a_problem_is_one_line(write: Write) -> None:
    [said] = problems_of("webhooks.yaml", write('version: 1\nchannels: {"a\\nb": {events: [done]}}'))
    assert said.startswith(r'webhooks.yaml:2: channels.a\nb: "a\nb" is not the name of a channel')
