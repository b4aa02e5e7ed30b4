"""Singular and plural forms of names."""

from __future__ import annotations

import pytest

from flask_webhooks.catalog.names import plural, singular

MANY = {
    "invoice": "invoices",
    "pay_run": "pay_runs",
    "key": "keys",
    "country": "countries",
    "business": "businesses",
    "status": "statuses",
    "box": "boxes",
    "batch": "batches",
    "house": "houses",
    "Invoice": "Invoices",
}


@pytest.mark.parametrize("one", MANY)
def test_many_of_one_and_one_of_many(one: str) -> None:
    assert plural(one) == MANY[one]
    assert singular(MANY[one]) == one


@pytest.mark.parametrize(
    "name", ["invoices", "user_data", "news", "people", "SUBMITTED", "tier_1", "children", ""]
)
def test_what_is_many_already_stays(name: str) -> None:
    assert plural(name) == name


def test_people_are_no_persons() -> None:
    assert (plural("contact_person"), plural("Child")) == ("contact_people", "Children")
