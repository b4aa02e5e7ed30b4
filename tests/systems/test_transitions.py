"""An event with a condition, next to the plain `updated` of the same commit, only if the condition holds."""

from __future__ import annotations

import typing as t

import pytest
from flask import Flask

from flask_webhooks.state import AppState
from tests.host import Invoice, Status, db
from tests.stage import recorded, subscribe


@pytest.fixture
def invoice(app: Flask, state: AppState) -> Invoice:
    """A draft, committed before there is a subscription."""
    row = Invoice(owner="1", number="1")
    db.session.add(row)
    db.session.commit()
    subscribe(state, "http://127.0.0.1:9/", "invoices.*")
    return row


def events(state: AppState) -> list[str]:
    return [row.event.partition(".")[2] for row in recorded(state)]


def become(invoice: Invoice, **columns: t.Any) -> None:
    for name, value in columns.items():
        setattr(invoice, name, value)
    db.session.commit()


def test_with_the_plain_update_in_one_commit(state: AppState, invoice: Invoice) -> None:
    become(invoice, status=Status.SENT)

    first, second = recorded(state)
    assert {first.event, second.event} == {"invoices.updated", "invoices.sent"}
    assert first.occurred_at == second.occurred_at
    assert {first.transition, second.transition} == {None, "SEND"}


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([{"number": "2"}], ["updated"]),
        ([{"status": Status.SENT}, {"status": Status.SENT}], ["updated", "sent"]),
        ([{"status": Status.SENT}, {"number": "2"}], ["updated", "sent", "updated"]),
        ([{"status": Status.PAID}], ["updated"]),  # paid is a step from sent
        (
            [{"status": Status.SENT}, {"status": Status.PAID}],
            ["updated", "sent", "updated", "paid"],
        ),
    ],
    ids=["another column", "sent already", "stays sent", "not from sent", "sent and paid"],
)
def test_when_it_happens(
    state: AppState, invoice: Invoice, steps: list[dict[str, t.Any]], expected: list[str]
) -> None:
    for columns in steps:
        become(invoice, **columns)

    assert events(state) == expected


def test_there_and_back_within_a_commit_is_no_step(state: AppState, invoice: Invoice) -> None:
    invoice.status = Status.SENT
    db.session.flush()
    invoice.status = Status.DRAFT
    invoice.number = "2"
    db.session.commit()

    assert events(state) == ["updated"]


def test_two_flushes_within_a_commit_are_one_step(state: AppState, invoice: Invoice) -> None:
    invoice.number = "2"
    db.session.flush()
    invoice.status = Status.SENT
    db.session.flush()
    db.session.commit()

    assert sorted(events(state)) == ["sent", "updated"]


def flush_each(invoice: Invoice, *steps: Status) -> None:
    """Take steps within one transaction, each written to the database."""
    for step in steps:
        invoice.status = step
        db.session.flush()


def test_there_back_and_there_again_within_a_commit_is_one_step(state: AppState, invoice: Invoice) -> None:
    flush_each(invoice, Status.SENT, Status.DRAFT, Status.SENT)
    db.session.commit()

    assert sorted(events(state)) == ["sent", "updated"]


def test_left_and_entered_again_within_a_commit_is_no_step(state: AppState, invoice: Invoice) -> None:
    become(invoice, status=Status.SENT)
    before = len(events(state))

    flush_each(invoice, Status.DRAFT, Status.SENT)
    invoice.number = "2"
    db.session.commit()

    assert events(state)[before:] == ["updated"]


def test_left_and_entered_again_in_two_commits_is_a_step(state: AppState, invoice: Invoice) -> None:
    for status in (Status.SENT, Status.DRAFT, Status.SENT):
        become(invoice, status=status)

    assert events(state).count("sent") == 2
