"""A guest changes nothing: random models and random writes end the same with us and without, listened to or not.

An example is a model (column types and other traits, with a schema or without, beside a fixed parent) and a list of
transactions. It is played three times on an empty database: without us, with nobody subscribed, with every event and
every include subscribed. The rows and what the host saw must be the same each time, every body that would be sent must
be valid by the JSON Schema that is published of it, and told is what the database says has happened: no more, no less.
"""

from __future__ import annotations

import json
import os
import typing as t
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, given, note, settings
from sqlalchemy.orm import Session

from flask_webhooks import payload
from flask_webhooks.models import Base as OurBase
from flask_webhooks.models import Message
from flask_webhooks.state import AppState
from tests.hosts.app import House, Play
from tests.hosts.examples import Example, Mood, examples
from tests.published import are_published

pytestmark = pytest.mark.long

PHASES = tuple(Phase) if "WEBHOOKS_TEST_DEEP" in os.environ else (Phase.explicit, Phase.generate)
"""To shrink an example takes minutes: with WEBHOOKS_TEST_DEEP alone."""

Rows = dict[tuple[str, str], dict[str, t.Any]]
"""Channel and key to what the driver says of a row."""


@dataclass
class Witness:
    """Compares the messages with the rows of the database, commit by commit."""

    house: House
    state: AppState
    seen: set[str] = field(default_factory=set)
    before: Rows = field(default_factory=dict)
    was_readable: bool = True

    def __call__(self, was_muted: bool) -> None:
        with Session(self.state.engine, info={"webhooks": False}) as session:
            now = self._rows(session)
            is_readable, self.was_readable = self.was_readable, self._is_readable(session)
            is_readable = is_readable and self.was_readable
            messages = [each for each in session.scalars(sa.select(Message)) if each.id not in self.seen]
            self.seen.update(each.id for each in messages)
            for message in messages:
                if message.event not in ("items.deleted", "parents.deleted"):
                    self._shows(session, message, now, is_readable)
        told = {
            (message.event, message.entity_id, message.owner)
            for message in messages
            if message.event != "items.turned"
        }
        # A bulk statement that meets a row which no type can read is let through untold.
        if not was_muted and is_readable:
            wanted = set(self._events(now))
            assert wanted <= told, (wanted, told)
            if "touching" not in self.house.traits:
                assert told == wanted, (wanted, told)
        self.before = now

    def _is_readable(self, session: Session) -> bool:
        try:
            session.scalars(sa.select(self.house.item)).all()
        except Exception:  # whatever types raise
            return False
        return True

    def _rows(self, session: Session) -> Rows:
        found: Rows = {}
        for channel, table in (("parents", "parent"), ("items", "item")):
            for row in session.connection().exec_driver_sql(f"SELECT * FROM {table}").mappings():
                keys = self.house.keys if table == "item" else ("id",)
                # JSON's null and SQL's are one to a row.
                values = {name: None if value == "null" else value for name, value in row.items()}
                found[channel, ",".join(str(row[key]) for key in keys)] = values
        return found

    def _owner(self, rows: Rows, channel: str, key: str) -> str | None:
        row = rows.get((channel, key), {})
        if channel == "items" and "led" in self.house.traits:
            row = rows.get(("parents", str(row.get("parent_id"))), {})
        return row.get("owner")

    def _events(self, now: Rows) -> t.Iterator[tuple[str, str, str]]:
        for channel, key in self.before.keys() | now.keys():
            if self.before.get((channel, key)) == now.get((channel, key)):
                continue
            before, after = self._owner(self.before, channel, key), self._owner(now, channel, key)
            if before == after:
                yield from [(f"{channel}.updated", key, before)] if before is not None else []
                continue
            yield from [(f"{channel}.deleted", key, before)] if before is not None else []
            yield from [(f"{channel}.created", key, after)] if after is not None else []

    def _shows(self, session: Session, message: Message, now: Rows, is_readable: bool) -> None:
        """Fail unless a message shows the row that a session which knows nothing of it reads."""
        channel, key = message.channel, str(message.entity_id)
        bound = self.state.bound[channel]
        try:
            row = session.get(t.cast("type", bound.model), tuple(map(int, key.split(","))))
            wanted = json.loads(payload.encode(bound.dump(row))) if row is not None else None
        except Exception:  # a value that cannot be read
            return
        data = json.loads(message.data)
        if data is None and not is_readable:  # broken by the schema of an include
            return
        assert data == wanted, message.event
        if channel == "parents":
            extras = json.loads(message.extras or "{}")
            items = [each for (name, _), each in now.items() if name == "items"]
            members = [each for each in items if str(each["parent_id"]) == key]
            # One that was appended twice is in the session's list twice, until that expires.
            assert {each["id"] for each in extras["items"]} == {each["id"] for each in members}, extras


def play(example: Example, url: str, folder: Path) -> set[str]:
    """Run an example three times and compare; return the events that were recorded."""
    house = House(example)
    with house.open(url, folder, "without"):
        expected = Play(house).run()
    for name in [table.name for table in OurBase.metadata.tables.values()]:
        assert name not in house.db.metadata.tables, "the first play is without us"
    with house.open(url, folder, "silent") as state:
        assert Play(house, state).run() == expected
    with house.open(url, folder, "subscribed") as state:
        witness = Witness(house, state)
        failed: list[AssertionError] = []

        def committed(was_muted: bool) -> None:
            try:
                witness(was_muted)
            except AssertionError as error:  # no error of the host's
                failed.append(error)

        assert Play(house, state, committed).run() == expected
        if failed:
            raise failed[0]
        return are_published(state)


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
@pytest.mark.parametrize("is_odd", [False, True], ids=["plain", "odd"])
def test_a_host_is_the_same_with_us(empty_database_url: str, tmp_path: Path, is_odd: bool) -> None:
    @settings(
        max_examples=int(os.environ.get("WEBHOOKS_TEST_EXAMPLES", "15")),
        phases=PHASES,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )
    @given(examples(is_odd=is_odd))
    def check(example: Example) -> None:
        note(repr(example))
        play(example, empty_database_url, tmp_path)

    check()


FOUND = {
    "an include of what a bulk statement deletes": Example(
        ("number",), False, ((("by relationship", 2, {"number": "6"}), ("bulk delete", 2, {})),)
    ),
    "assigned and deleted without a flush between": Example(
        ("share",),
        False,
        (
            (("add", 2, {"share": Decimal("2.5")}),),
            (("assign", 2, {"share": Decimal("1.5")}), ("delete", 2, {})),
        ),
    ),
    "an update to what can be written and not read": Example(
        ("mood",), False, ((("add", 1, {}),), (("assign", 1, {"mood": "wild"}),))
    ),
    "a word that is none of the enum's, without a schema": Example(
        ("word", "state", "number"),
        False,
        (
            (("add", 1, {"word": "z", "state": "WILD", "number": "many"}),),
            (("assign", 1, {"word": "x", "state": Mood.CALM}),),
            (("assign", 1, {"word": "z", "number": 5}),),
        ),
    ),
    "a deletion of what can be written and not read": Example(
        ("word",),
        True,
        ((("add", 1, {}),), (("assign", 1, {"word": "z"}), ("flush", 1, {}), ("delete", 1, {}))),
    ),
    "a bulk statement that writes what can be written and not read": Example(
        ("state",),
        False,
        ((("insert or nothing", 2, {}), ("bulk in a savepoint", 1, {"state": "WILD"})),),
    ),
    "assigned to what was loaded before a savepoint took it back": Example(
        ("number",),
        False,
        (
            (("add", 1, {"number": 0}),),
            (("update read and rolled back", 1, {"number": 5}), ("assign", 1, {"number": 5})),
        ),
        frozenset({"stays"}),
    ),
    "told of what was loaded before a savepoint took it back": Example(
        ("number",),
        False,
        (
            (("add", 1, {"number": 0}),),
            (("update read and rolled back", 1, {"number": 5}), ("assign", 1, {"number": 6})),
            (("assign", 1, {"number": 7}), ("delete", 1, {})),
        ),
        frozenset({"stays"}),
    ),
    "assigned to a row that never was": Example(
        ("number",),
        False,
        ((("insert read and rolled back", 1, {}), ("assign", 1, {"number": 5})),),
    ),
}
"""What was drawn once and failed."""


@pytest.mark.parametrize("example", FOUND.values(), ids=FOUND)
def test_what_was_found(example: Example, tmp_path: Path) -> None:
    play(example, f"sqlite:///{tmp_path / 'test.sqlite'}", tmp_path)
