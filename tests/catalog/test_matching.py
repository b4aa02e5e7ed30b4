"""Which changes of a row match which events."""

from __future__ import annotations

import enum
import typing as t
from pathlib import Path

import pytest

from flask_webhooks.catalog import EventType, Kind, load

CREATED, UPDATED, DELETED = Kind.CREATED, Kind.UPDATED, Kind.DELETED

EVENTS = """\
version: 1
channels:
  Invoice:
    model: lending.models:Invoice
    events:
      created:
      updated: {ignore: [updated_at]}
      deleted: {when: {status: DRAFT}}
      SUBMITTED: {when: {status: SUBMITTED}, transition: SUBMIT}
      BORN_OR_SUBMITTED: {on: [created, updated], when: {status: SUBMITTED}}
      paid: {when: {status: {from: [SENT, OVERDUE], to: PAID}}}
      done: {when: {status: {to: [PAID, VOID]}}}
      unsent: {when: {status: {from: SENT}}}
      moved: {when: {changed: [due_on, client_id]}}
      rushed: {when: {urgent: true, changed: [due_on]}}
      forgotten: {when: {owner_id: null}}
      settled: {when: {status: {from: PAID, to: [PAID, SETTLED]}}}
      manual: {on: emit}
  soft:
    model: lending.models:Invoice
    events:
      created: {on: [created, updated], when: {gone_at: null}}
      deleted: {on: [deleted, updated, moved_out], when: {gone_at: {from: null}}}
      gone: {on: [deleted, updated], when: {status: VOID}}
      came: {on: moved_in, when: {status: OPEN}}
"""


@pytest.fixture
def events(write: t.Callable[..., Path]) -> t.Mapping[str, EventType]:
    return load("webhooks.yaml", root=write(EVENTS)).channels["Invoice"].events


class Status(enum.Enum):
    SUBMITTED = "sub"
    DRAFT = "dra"


def to(old: object, new: object, column: str = "status") -> dict[str, tuple[object, object]]:
    return {column: (old, new)}


@pytest.mark.parametrize(
    ("event", "kind", "changes", "happens"),
    [
        ("created", CREATED, {}, True),
        ("created", UPDATED, to("DRAFT", "SENT"), False),
        ("updated", UPDATED, to("DRAFT", "SENT"), True),
        ("updated", UPDATED, to(1, 2, "updated_at"), False),
        ("updated", UPDATED, to(1, 2, "updated_at") | to("a", "b"), True),
        ("updated", UPDATED, to("SENT", "SENT"), False),
        ("updated", UPDATED, {}, False),
        ("updated", CREATED, to(None, "SENT"), False),
        ("deleted", DELETED, to("DRAFT", None), True),
        ("deleted", DELETED, to("SENT", None), False),
        ("SUBMITTED", UPDATED, to("DRAFT", "SUBMITTED"), True),
        ("SUBMITTED", UPDATED, to("SUBMITTED", "SUBMITTED"), False),
        ("SUBMITTED", UPDATED, to("SUBMITTED", "VERIFIED"), False),
        ("SUBMITTED", UPDATED, to(1, 2, "total"), False),
        ("SUBMITTED", CREATED, to(None, "SUBMITTED"), False),
        ("SUBMITTED", UPDATED, to(Status.DRAFT, Status.SUBMITTED), True),
        ("SUBMITTED", UPDATED, to(Status.SUBMITTED, Status.DRAFT), False),
        ("BORN_OR_SUBMITTED", CREATED, to(None, "SUBMITTED"), True),
        ("BORN_OR_SUBMITTED", CREATED, to(None, "DRAFT"), False),
        ("BORN_OR_SUBMITTED", UPDATED, to("DRAFT", "SUBMITTED"), True),
        ("BORN_OR_SUBMITTED", DELETED, to("SUBMITTED", None), False),
        ("paid", UPDATED, to("SENT", "PAID"), True),
        ("paid", UPDATED, to("DRAFT", "PAID"), False),
        ("paid", UPDATED, to("PAID", "PAID"), False),
        ("done", UPDATED, to("SENT", "VOID"), True),
        # It was done before: a step within the set enters nothing.
        ("done", UPDATED, to("PAID", "VOID"), False),
        # Unless `from` says that this very step is meant.
        ("settled", UPDATED, to("PAID", "SETTLED"), True),
        ("settled", UPDATED, to("PAID", "PAID"), False),
        ("unsent", UPDATED, to("SENT", "anything"), True),
        ("unsent", UPDATED, to("DRAFT", "SENT"), False),
        ("unsent", UPDATED, to("SENT", "SENT") | to(1, 2, "total"), False),
        ("moved", UPDATED, to(1, 2, "client_id"), True),
        ("moved", UPDATED, to(2, 2, "client_id"), False),
        ("moved", UPDATED, to(1, 2, "total"), False),
        ("rushed", UPDATED, to(False, True, "urgent") | to(1, 2, "due_on"), True),
        ("rushed", UPDATED, to(False, True, "urgent"), False),
        ("rushed", UPDATED, to(1, 2, "due_on"), False),
        ("forgotten", UPDATED, to(5, None, "owner_id"), True),
        ("forgotten", UPDATED, to(None, 5, "owner_id"), False),
        ("manual", CREATED, {}, False),
        ("manual", UPDATED, to("DRAFT", "SENT"), False),
    ],
)
def test_matches(
    events: t.Mapping[str, EventType],
    event: str,
    kind: Kind,
    changes: dict[str, tuple[object, object]],
    happens: bool,
) -> None:
    assert events[event].matches(kind, changes) is happens


def test_transition_comes_with_the_plain_update(events: t.Mapping[str, EventType]) -> None:
    change = to("DRAFT", "SUBMITTED")
    happened = [name for name, event in events.items() if event.matches(UPDATED, change)]
    assert happened == ["updated", "SUBMITTED", "BORN_OR_SUBMITTED"]


def test_touched_row_is_updated_though_nothing_of_its_own_changed(events: t.Mapping[str, EventType]) -> None:
    assert [name for name, event in events.items() if event.matches(UPDATED, {}, touched=True)] == ["updated"]


def test_touched_row_whose_ignored_column_changed_is_updated(events: t.Mapping[str, EventType]) -> None:
    assert events["updated"].matches(UPDATED, to(1, 2, "updated_at"), touched=True)


def test_columns_are_all_that_the_conditions_name(events: t.Mapping[str, EventType]) -> None:
    assert events["rushed"].columns == {"urgent", "due_on"}
    assert events["updated"].columns == {"updated_at"}


@pytest.mark.parametrize(
    ("event", "kind", "changes", "happens"),
    [
        ("deleted", UPDATED, to(None, "now", "gone_at"), True),
        ("deleted", UPDATED, to("now", None, "gone_at"), False),
        ("deleted", UPDATED, to("a", "b", "note"), False),
        ("deleted", DELETED, to(None, None, "gone_at"), True),
        ("deleted", DELETED, to("now", None, "gone_at"), False),  # its update was the `deleted` event
        ("deleted", Kind.MOVED_OUT, to("now", None, "gone_at"), False),
        ("deleted", Kind.MOVED_OUT, to(None, None, "gone_at"), True),
        ("created", UPDATED, to("now", None, "gone_at"), True),
        ("created", CREATED, to(None, None, "gone_at"), True),
        ("created", CREATED, to(None, "now", "gone_at"), False),
        ("gone", DELETED, to("VOID", None), True),  # another name: judged by its last value
        ("gone", DELETED, to("OPEN", None), False),
        ("came", Kind.MOVED_IN, to(None, "OPEN"), True),
        ("came", Kind.MOVED_IN, to("OPEN", None), False),
        ("came", CREATED, to(None, "OPEN"), False),
    ],
)
def test_soft_deletes_and_moves(
    write: t.Callable[..., Path],
    event: str,
    kind: Kind,
    changes: dict[str, tuple[object, object]],
    happens: bool,
) -> None:
    found = load("webhooks.yaml", root=write(EVENTS)).channels["soft"].events[event]

    assert found.matches(kind, changes) is happens
