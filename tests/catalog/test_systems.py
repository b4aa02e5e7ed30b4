"""The catalogues in `catalog/` load, bind to the models that they name, and declare the events that they promise."""

from __future__ import annotations

import json
import sys
import typing as t
from pathlib import Path

import jsonschema
import pytest

from flask_webhooks.bindings import open_catalog
from flask_webhooks.catalog import Kind, json_schema, load
from flask_webhooks.catalog.yaml_reader import Report, compose, plain

ROOT = Path(__file__).parents[2]
CATALOGS = ROOT / "catalog"


@pytest.fixture(autouse=True, scope="module")
def _systems() -> t.Iterator[None]:
    sys.path.insert(0, str(ROOT / "tests" / "systems"))
    yield
    sys.path.remove(str(ROOT / "tests" / "systems"))


@pytest.mark.parametrize("path", sorted(CATALOGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_editor_accepts_it(path: Path) -> None:
    report = Report(path.name)
    root = compose(path.read_text(encoding="utf-8"), report)
    assert root is not None
    errors = jsonschema.Draft202012Validator(json_schema()).iter_errors(plain(root, "", report))
    assert [error.message for error in errors] == []
    load(path, root=ROOT)


@pytest.mark.parametrize("name", ["invoicing", "lending", "banking", "procurement"])
def test_it_fits_its_models(name: str) -> None:
    catalog, bound = open_catalog(f"{name}.yaml", root=CATALOGS)
    assert all(channel.owner for channel in catalog.channels.values() if channel.model)
    assert json.dumps([each.channel.name for each in bound.values()])


def test_invoicing_includes() -> None:
    catalog, bound = open_catalog("invoicing.yaml", root=CATALOGS)
    assert list(bound["invoice"].includes) == ["bank_account", "invoice_prefix", "invoice_user", "line_items"]
    assert bound["invoice"].includes["invoice_user"].schema is bound["user"].schema
    assert bound["invoice"].includes["line_items"].schema is bound["line_items"].schema
    assert [touch.channel for touch in bound["line_items"].touches] == ["invoice"]
    assert "invoice.updated" in catalog.events


def test_lending_transitions() -> None:
    catalog = load("lending.yaml", root=CATALOGS)
    submitted = catalog.events["Invoice.SUBMITTED"]
    assert (submitted.transition, submitted.format, submitted.formats) == (
        "SUBMIT",
        "entity",
        ("entity", "slack"),
    )
    assert submitted.matches(Kind.UPDATED, {"status": ("DRAFT", "SUBMITTED")})
    assert not catalog.events["Invoice.VERIFIED"].matches(Kind.UPDATED, {"status": ("DRAFT", "VERIFIED")})


def test_banking_is_only_emitted_and_not_sent_again() -> None:
    catalog = load("banking.yaml", root=CATALOGS)
    assert {"categorizationjob.completed", "transactions.fetched"} <= catalog.events.keys()
    for event in catalog.events.values():
        assert (event.on, event.retry, event.format) == (frozenset(), "none", "minimal")


def test_procurement_events() -> None:
    catalog = load("procurement.yaml", root=CATALOGS)
    assert {
        "invoice.created",
        "invoice.paid",
        "offer.accepted",
        "milestone.approved",
    } <= catalog.events.keys()
    assert {event.format for event in catalog.events.values()} == {"standard"}
    assert all(event.description for event in catalog.events.values())
