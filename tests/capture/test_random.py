"""Random transactions against a model in plain Python of what must have been recorded.

The model knows two states, the committed one and the one that the transaction has come to, and a copy for each open
savepoint. The messages must be the difference between the two; only for transitions it keeps what happened between.
"""

from __future__ import annotations

import copy
import gc
import json
import os
import typing as t
from dataclasses import dataclass, field

import pytest
import sqlalchemy as sa
from flask import Flask
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, make_transient

from flask_webhooks.capture import emit_many
from flask_webhooks.models import Delivery, Message
from flask_webhooks.state import AppState, state_of
from tests.capture.conftest import NOWHERE, changes
from tests.host import Invoice, Line, Status, db
from tests.stage import recorded, subscribe

pytestmark = pytest.mark.long

IDS = st.integers(1, 3)
TEXTS = st.sampled_from(["a", "b", "c"])
STATUSES = st.sampled_from(list(Status))
Row = dict[str, t.Any]


@dataclass
class World:
    """Everything that a transaction can change."""

    invoices: dict[int, Row] = field(default_factory=dict)
    lines: dict[int, tuple[int, str]] = field(default_factory=dict)
    """To (invoice, text)."""
    gone: dict[int, Row] = field(default_factory=dict)
    """The last state of rows that this transaction has deleted."""
    steps: dict[int, list[tuple[Status, Status]]] = field(default_factory=dict)
    """What the status of an invoice went through in this transaction."""
    emitted: list[int] = field(default_factory=list)
    """Numbers of the reports that this transaction has emitted."""


def expected(before: World, after: World) -> list[tuple[str, int, Row, Row]]:
    """Return (event, id, data, changes) of all expected messages."""
    found = []
    for key in before.invoices.keys() | after.invoices.keys():
        old, new = before.invoices.get(key), after.invoices.get(key)
        if old is None and new is not None:
            found.append(("invoices.created", key, new, {}))
            found += [(name, key, new, {}) for name in transitions(after.steps.get(key, []))]
        elif old is not None and new is None:
            found.append(("invoices.deleted", key, after.gone[key], {}))
        elif old is not None and new is not None:
            diff = {name: (old[name], new[name]) for name in old if old[name] != new[name]}
            if diff or touches(before, after, key):
                found.append(("invoices.updated", key, new, diff))
            if "status" in diff:
                steps = [*after.steps.get(key, []), (old["status"], new["status"])]
                found += [(name, key, new, diff) for name in transitions(steps)]
    return found


def transitions(steps: list[tuple[Status, Status]]) -> list[str]:
    """Names of the transitions among these steps, each once."""
    found = []
    if any(old is not new and new is Status.SENT for old, new in steps):
        found.append("invoices.sent")
    if (Status.SENT, Status.PAID) in steps:
        found.append("invoices.paid")
    return found


def touches(before: World, after: World, key: int) -> bool:
    """Whether a line of this invoice came, went or changed."""
    return {number: line for number, line in before.lines.items() if line[0] == key} != {
        number: line for number, line in after.lines.items() if line[0] == key
    }


class Transactions(RuleBasedStateMachine):
    """What a host may do in a session."""

    app: Flask
    state: AppState

    def __init__(self) -> None:
        super().__init__()
        self.context = self.app.app_context()
        self.context.push()
        self.session = db.session()
        self.committed, self.now = World(), World()
        self.savepoints: list[tuple[t.Any, World]] = []
        self.next_line, self.next_report = 1, 0
        self.told = 0

    @initialize()
    def begin_with_some(self) -> None:
        """Two committed invoices: what happens to these is what is hard."""
        for key in (1, 2):
            self.add(key, "a", Status.DRAFT, True)
            self.add_line(key, "a", False)
        self.commit()

    def teardown(self) -> None:
        try:
            if self.committed.invoices or self.now.invoices:
                self.commit()
        finally:
            self._clean()

    def _clean(self) -> None:
        db.session.remove()
        self.context.pop()
        with Session(self.state.engine, info={"webhooks": False}) as session:
            for model in (Line, Invoice, Message, Delivery):
                session.execute(sa.delete(model))
            session.commit()

    # ---- objects ----

    @rule(key=IDS, number=TEXTS, status=STATUSES, flush=st.booleans())
    def add(self, key: int, number: str, status: Status, flush: bool) -> None:
        self._add(key, {"number": number, "status": status, "note": None}, flush)

    @rule(key=IDS, given=st.sets(st.sampled_from(["number", "note"])), text=TEXTS, flush=st.booleans())
    def add_some(self, key: int, given: set[str], text: str, flush: bool) -> None:
        self._add(key, dict.fromkeys(given, text), flush)

    @rule(key=IDS, given=st.sets(st.sampled_from(["number", "note"])), text=TEXTS, flush=st.booleans())
    def replace(self, key: int, given: set[str], text: str, flush: bool) -> None:
        """Delete one and add another under its key: SQLAlchemy makes one UPDATE of it."""
        self.delete(key, False)
        self._add(key, dict.fromkeys(given, text), flush)

    def _add(self, key: int, given: Row, flush: bool) -> None:
        """Add an invoice; in place of one whose deletion is not flushed it keeps what is not given."""
        if key in self.now.invoices:
            return
        replaced = any(isinstance(obj, Invoice) and obj.id == key for obj in self.session.deleted)
        rest = self.now.gone[key] if replaced else {"number": "", "status": Status.DRAFT, "note": None}
        self.session.add(Invoice(id=key, owner="1", **given))
        self.now.invoices[key] = {**rest, **given}
        if flush:
            self.session.flush()

    @rule(key=IDS, name=st.sampled_from(["number", "note"]), value=TEXTS, flush=st.booleans())
    def assign(self, key: int, name: str, value: str, flush: bool) -> None:
        if key in self.now.invoices:
            setattr(self._invoice(key), name, value)
            self.now.invoices[key][name] = value
            if flush:
                self.session.flush()

    @rule(key=IDS, status=STATUSES)
    def move(self, key: int, status: Status) -> None:
        if key in self.now.invoices:
            self.session.flush()
            self._invoice(key).status = status
            self.session.flush()
            self._step(key, status)

    @rule(key=IDS, flush=st.booleans())
    def delete(self, key: int, flush: bool) -> None:
        if key in self.now.invoices:
            self.session.flush()
            self.session.delete(self._invoice(key))
            self._gone(key)
            if flush:
                self.session.flush()

    @rule(key=IDS, text=TEXTS, by_key=st.booleans())
    def add_line(self, key: int, text: str, by_key: bool) -> None:
        if key not in self.now.invoices:
            return
        number, self.next_line = self.next_line, self.next_line + 1
        if by_key:
            self.session.flush()
            self.session.add(Line(id=number, invoice_id=key, text=text))
        else:
            invoice = self._invoice(key)
            invoice.lines.append(Line(id=number, text=text))
        self.session.flush()
        self.now.lines[number] = (key, text)

    @rule(text=TEXTS, data=st.data())
    def change_line(self, text: str, data: st.DataObject) -> None:
        if not self.now.lines:
            return
        number = data.draw(st.sampled_from(sorted(self.now.lines)))
        self.session.flush()
        self.session.get_one(Line, number).text = text
        self.now.lines[number] = (self.now.lines[number][0], text)
        self.session.flush()

    @rule(data=st.data(), then=st.sampled_from(["expire lines", "expire", "refresh", "remove", "assign"]))
    def delete_line(self, data: st.DataObject, then: str) -> None:
        """Its parent's collection knows nothing of it; each host has its own way to see to that."""
        if not self.now.lines:
            return
        number = data.draw(st.sampled_from(sorted(self.now.lines)))
        self.session.flush()
        line = self.session.get_one(Line, number)
        invoice = self._invoice(self.now.lines.pop(number)[0])
        self.session.delete(line)
        self.session.flush()
        if then == "remove" and line in invoice.lines:
            invoice.lines.remove(line)
        elif then == "expire":
            self.session.expire(invoice)
        elif then == "refresh":
            self.session.refresh(invoice)
        elif then == "assign":
            line.text, line.invoice_id = "gone", None
        if then in ("expire lines", "remove", "assign"):
            self.session.expire(invoice, ["lines"])
        self.session.flush()

    @rule(key=IDS, number=TEXTS)
    def clone(self, key: int, number: str) -> None:
        """Another row is made of the object of one."""
        free = sorted({1, 2, 3} - self.now.invoices.keys())
        if key not in self.now.invoices or not free:
            return
        self.session.flush()
        self.session.expire_all()  # else its lines would say that they belong to the clone: to SQLAlchemy too
        invoice = self._invoice(key)
        row = self.now.invoices[key]
        assert (invoice.number, invoice.status, invoice.note) == (row["number"], row["status"], row["note"])
        make_transient(invoice)
        invoice.id, invoice.number = free[0], number
        self.session.add(invoice)
        self.now.invoices[free[0]] = {**row, "number": number}
        self.session.flush()

    @rule(data=st.data(), key=IDS, is_loaded=st.booleans())
    def move_line_by_key(self, data: st.DataObject, key: int, is_loaded: bool) -> None:
        if not self.now.lines or key not in self.now.invoices:
            return
        number = data.draw(st.sampled_from(sorted(self.now.lines)))
        self.session.flush()
        line = self.session.get_one(Line, number)
        before, text = self.now.lines[number]
        if is_loaded:
            assert line.invoice is not None
        line.invoice_id = key
        self.session.flush()
        for each in {before, key}:
            self.session.expire(self._invoice(each), ["lines"])
        self.now.lines[number] = (key, text)

    @rule(data=st.data(), flush=st.booleans())
    def take_line_away(self, data: st.DataObject, flush: bool) -> None:
        if not self.now.lines:
            return
        number = data.draw(st.sampled_from(sorted(self.now.lines)))
        self.session.flush()
        key, _ = self.now.lines.pop(number)
        invoice, line = self._invoice(key), self.session.get_one(Line, number)
        self.session.expire(invoice, ["lines"])
        # Of a line that was moved by its key SQLAlchemy knows the parent before: it would refuse, or do nothing.
        sa.inspect(line).parents.clear()
        invoice.lines.remove(line)
        if flush:
            self.session.flush()

    @rule()
    def emit(self) -> None:
        self.next_report += 1
        emit_many(self.state, self.session, "reports.ready", [{"id": self.next_report}], owner="1")
        self.now.emitted.append(self.next_report)

    # ---- bulk ----

    @rule(keys=st.sets(IDS), value=TEXTS)
    def bulk_update(self, keys: set[int], value: str) -> None:
        self.session.execute(sa.update(Invoice).where(Invoice.id.in_(keys)).values(note=value))
        for key in keys & self.now.invoices.keys():
            self.now.invoices[key]["note"] = value

    @rule(keys=st.sets(IDS), status=STATUSES)
    def bulk_move(self, keys: set[int], status: Status) -> None:
        self.session.flush()
        self.session.execute(sa.update(Invoice).where(Invoice.id.in_(keys)).values(status=status))
        for key in keys & self.now.invoices.keys():
            self._step(key, status)

    @rule(keys=st.sets(IDS))
    def bulk_delete(self, keys: set[int]) -> None:
        keys -= {line[0] for line in self.now.lines.values()}
        self.session.execute(sa.delete(Invoice).where(Invoice.id.in_(keys)))
        for key in keys & self.now.invoices.keys():
            self._gone(key)

    @rule(keys=st.sets(IDS, min_size=1), number=TEXTS)
    def bulk_insert(self, keys: set[int], number: str) -> None:
        self.session.flush()
        fresh = sorted(keys - self.now.invoices.keys())
        if fresh:
            rows = [{"id": key, "owner": "1", "number": number, "note": None} for key in fresh]
            self.session.execute(sa.insert(Invoice), rows)
        for key in fresh:
            self.now.invoices[key] = {"number": number, "status": Status.DRAFT, "note": None}

    # ---- the session ----

    @rule()
    def flush(self) -> None:
        self.session.flush()

    @rule()
    def expire(self) -> None:
        self.session.flush()
        self.session.expire_all()

    @rule()
    def collect_garbage(self) -> None:
        """Objects without references are loaded again: a session holds flushed ones only by weak references."""
        gc.collect()

    @rule()
    def savepoint(self) -> None:
        self.savepoints.append((self.session.begin_nested(), copy.deepcopy(self.now)))

    @precondition(lambda self: self.savepoints)
    @rule()
    def release(self) -> None:
        nested, _ = self.savepoints.pop()
        nested.commit()

    @precondition(lambda self: self.savepoints)
    @rule()
    def roll_back_savepoint(self) -> None:
        nested, self.now = self.savepoints.pop()
        nested.rollback()

    @rule(key=IDS, value=TEXTS, is_deleted=st.booleans())
    def undo(self, key: int, value: str, is_deleted: bool) -> None:
        """Something that is flushed in a savepoint and rolled back with it: by chance alone this is too rare."""
        self.savepoint()
        if is_deleted:
            self.delete(key, True)
        else:
            self.assign(key, "note", value, True)
        self.roll_back_savepoint()

    @precondition(lambda self: self.now.invoices)
    @rule(number=TEXTS)
    def fail_in_a_savepoint(self, number: str) -> None:
        self.session.flush()
        self.session.expunge_all()
        with self.session.begin_nested() as nested:
            self.session.add(Invoice(id=99, owner="1", number=number))
            self.session.flush()
            self.session.add(Invoice(id=min(self.now.invoices), owner="1"))
            with pytest.raises(IntegrityError):
                self.session.flush()
            nested.rollback()

    @rule(how=st.sampled_from(["rollback", "close"]))
    def roll_back(self, how: str) -> None:
        getattr(self.session, how)()
        self.savepoints.clear()
        self.now = copy.deepcopy(self.committed)

    @rule()
    def refused_commit(self) -> None:
        """A listener of the host's refuses it after all is written; the transaction goes on, without savepoints."""

        def refuse(session: Session) -> None:
            if not session.in_nested_transaction():
                raise ValueError("no")

        sa.event.listen(self.session, "before_commit", refuse)
        try:
            with pytest.raises(ValueError, match="no"):
                self.session.commit()
        finally:
            sa.event.remove(self.session, "before_commit", refuse)
        self.savepoints.clear()

    @rule()
    def commit(self) -> None:
        self.session.commit()
        self.savepoints.clear()
        found = recorded(self.state)[self.told :]
        self.told += len(found)
        wanted = expected(self.committed, self.now)
        wanted += [("reports.ready", number, {}, {}) for number in self.now.emitted]
        self.now.steps.clear()
        self.now.gone.clear()
        self.now.emitted.clear()
        self.committed = copy.deepcopy(self.now)

        assert sorted(map(told, found)) == sorted(map(plain, wanted))
        with Session(self.state.engine) as session:
            assert sorted(session.scalars(sa.select(Delivery.message_id))) == sorted(
                session.scalars(sa.select(Message.id))
            )

    def _invoice(self, key: int) -> Invoice:
        found = self.session.get_one(Invoice, key)
        if found in self.session.deleted:  # one with the same key is added, and takes its place at the flush
            self.session.flush()
            found = self.session.get_one(Invoice, key)
        return found

    def _step(self, key: int, status: Status) -> None:
        row = self.now.invoices[key]
        self.now.steps.setdefault(key, []).append((row["status"], status))
        row["status"] = status

    def _gone(self, key: int) -> None:
        row = self.now.invoices.pop(key)
        self.now.lines = {number: line for number, line in self.now.lines.items() if line[0] != key}
        self.now.gone[key] = row
        if key not in self.committed.invoices:
            self.now.steps.pop(key, None)


def told(message: Message) -> tuple[str, int, str, str]:
    """A message, for comparison."""
    data, diff = json.loads(message.data), changes(message)
    names = ("number", "status", "note")
    return (
        message.event,
        int(message.entity_id or 0),
        json.dumps({name: data[name] for name in names if name in data}),
        json.dumps({name: diff[name] for name in names if name in diff}),
    )


def plain(wanted: tuple[str, int, Row, Row]) -> tuple[str, int, str, str]:
    """What the model expects, for comparison."""
    event, key, row, diff = wanted
    names = ("number", "status", "note")
    return (
        event,
        key,
        json.dumps({name: value_of(row[name]) for name in names if name in row}),
        json.dumps({name: [value_of(each) for each in diff[name]] for name in names if name in diff}),
    )


def value_of(value: t.Any) -> t.Any:
    """As it stands in JSON."""
    return value.value if isinstance(value, Status) else value


def run(app: Flask, examples: int) -> None:
    """Drive random transactions through one app."""
    machine = type("Transactions", (Transactions,), {"app": app, "state": state_of(app)})
    subscribe(state_of(app), NOWHERE, "invoices.*", "reports.*", includes=["changes"])
    gc.collect()
    gc.freeze()  # else each `collect_garbage` would look at all modules too
    try:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=40,
                deadline=None,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink],
                derandomize="WEBHOOKS_TEST_DEEP" not in os.environ,
            ),
        )
    finally:
        gc.unfreeze()


def test_hundreds(make_app: t.Callable[..., Flask], database_url: str) -> None:
    is_slow = database_url.startswith("mysql")  # four times as long as PostgreSQL
    run(make_app(), 60 if is_slow else 200)


@pytest.mark.deep
def test_thousands(make_app: t.Callable[..., Flask]) -> None:
    run(make_app(), 3000)
