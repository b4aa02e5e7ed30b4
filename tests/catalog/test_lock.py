"""The lock file: what receivers rely on, and which changes break them."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest

from flask_webhooks.bindings import describe, open_catalog
from flask_webhooks.catalog import Change, build_lock, compare
from flask_webhooks.errors import ConfigurationError

HERE = Path(__file__).parent
Write = t.Callable[..., Path]

INVOICES = """\
version: 1
channels:
  invoices:
    model: shop:Invoice
    schema: shop:InvoiceSchema
    owner: client.business_id
    events: [created, updated]
    includes: {client: , rows: lines, display: }
    formats: [standard]
  clients: {model: shop:Client, owner: business_id, events: [created]}
  jobs: {events: [done]}
"""


def lock_of(root: Path) -> dict[str, t.Any]:
    catalog, bound = open_catalog("webhooks.yaml", root=root)
    # As it comes back from the file.
    return t.cast("dict[str, t.Any]", json.loads(json.dumps(build_lock(catalog, *describe(bound)))))


@pytest.fixture
def lock(write: Write) -> dict[str, t.Any]:
    return lock_of(write(INVOICES))


def changed(write: Write, lock: dict[str, t.Any], old: str, new: str) -> list[Change]:
    assert old in INVOICES
    return compare(lock, lock_of(write(INVOICES.replace(old, new))))


def test_lock_knows_fields_of_schemas_columns_and_includes(lock: dict[str, t.Any]) -> None:
    assert lock["events"]["invoices.created"]["fields"] == {
        "id": "integer",
        "number": "string",
        "status": "string",
        "total": "decimal",
        "lines[].id": "integer",
        "lines[].product": "string",
        "customer": "string",
    }
    assert lock["events"]["clients.created"]["fields"] == {
        "id": "integer",
        "business_id": "integer",
        "name": "string",
    }
    assert lock["events"]["jobs.done"]["fields"] == {}
    assert lock["channels"]["invoices"]["includes"]["rows"] == {
        "[].id": "integer",
        "[].invoice_id": "integer",
        "[].product": "string",
        "[].quantity": "integer",
    }
    assert lock["channels"]["invoices"]["includes"]["display"] == {"": "any"}


def test_nothing_changed(lock: dict[str, t.Any]) -> None:
    assert compare(lock, lock) == []


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("[created, updated]", "[created]", [("invoices.updated", True)]),
        ("[created, updated]", "[created, updated, deleted]", [("invoices.deleted", False)]),
        ("  jobs: {events: [done]}\n", "", [("jobs.done", True)]),
        (
            "{client: , rows: lines, display: }",
            "{client: , rows: lines}",
            [("invoices: include display", True)],
        ),
        (
            "{client: , rows: lines, display: }",
            "{client: , rows: lines, display: , note: client.name}",
            [("invoices: include note", False)],
        ),
        ("events: [done]", "events: [done], exclusive: true", [("jobs", True)]),
        ("events: [done]", "events: [done], format: minimal", [("jobs.done", True)]),
        (
            "formats: [standard]",
            "formats: [slack]",
            [
                ("invoices.created", True),
                ("invoices.updated", True),
                ("invoices.created", False),
                ("invoices.updated", False),
            ],
        ),
        (
            "schema: shop:InvoiceSchema",
            "schema: shop:LineSchema",
            [
                ("invoices.created: customer", True),
                ("invoices.created: lines[].id", True),
                ("invoices.created: lines[].product", True),
                ("invoices.created: number", True),
                ("invoices.created: status", True),
                ("invoices.created: total", True),
                ("invoices.created: product", False),
            ],
        ),
    ],
)
def test_change(
    write: Write, lock: dict[str, t.Any], old: str, new: str, expected: list[tuple[str, bool]]
) -> None:
    found = [(change.path, change.breaking) for change in changed(write, lock, old, new)]
    # One of two events with the same schema stands for both.
    found = [each for each in found if not each[0].startswith("invoices.updated: ")]
    assert found == expected


def edited(lock: dict[str, t.Any], **fields: str | None) -> dict[str, t.Any]:
    copy = t.cast("dict[str, t.Any]", json.loads(json.dumps(lock)))
    for name, kind in fields.items():
        if kind is None:
            del copy["events"]["invoices.created"]["fields"][name]
        else:
            copy["events"]["invoices.created"]["fields"][name] = kind
    return copy


def test_field_removed_retyped_added(lock: dict[str, t.Any]) -> None:
    changes = compare(lock, edited(lock, number="integer", status=None, due_on="date"))
    assert [str(change) for change in changes] == [
        "BREAKING: invoices.created: number: the type was string and is now integer.",
        "BREAKING: invoices.created: status: the field is gone.",
        "added: invoices.created: due_on: is new.",
    ]


def test_unknown_type_is_reported_but_not_breaking(lock: dict[str, t.Any]) -> None:
    [change] = compare(lock, edited(lock, number="any"))
    assert not change.breaking


@pytest.mark.parametrize("other", [{}, {"lock": 2, "events": {}, "channels": {}}, {"lock": 1, "events": {}}])
def test_other_files_are_refused(lock: dict[str, t.Any], other: dict[str, t.Any]) -> None:
    with pytest.raises(ConfigurationError, match="Write it anew"):
        compare(other, lock)
