"""A row that a type of the host's cannot read: a bulk statement still works as it would without us."""

from __future__ import annotations

import logging
import typing as t
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from flask_webhooks.state import AppState
from tests.capture.conftest import NOWHERE, capturing
from tests.stage import recorded, subscribe


class Base(DeclarativeBase):
    """Root of the models."""


db = SQLAlchemy(model_class=Base)


class Strict(sa.types.TypeDecorator[str]):
    """Takes anything, and reads only what it knows."""

    impl = sa.String(40)
    cache_ok = True

    def process_result_value(self, value: str | None, _: t.Any) -> str | None:
        if value is not None and value.startswith("old:"):
            raise ValueError(f"{value} is of an old release")
        return value


class Card(db.Model):  # type: ignore[name-defined]
    """Some rows are older than their type."""

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str] = mapped_column(sa.String(9), default="1")
    state: Mapped[str] = mapped_column(sa.String(9), default="")
    code: Mapped[str | None] = mapped_column(Strict)


CATALOG = f"""\
version: 1
channels:
  cards: {{model: {__name__}:Card, owner: owner, events: [created, updated, deleted]}}
"""


@pytest.fixture
def state(empty_database_url: str, tmp_path: Path) -> t.Iterator[AppState]:
    """A row that can be read, and one that cannot."""
    with capturing(db, CATALOG, empty_database_url, tmp_path) as state:
        subscribe(state, NOWHERE, "cards.*")
        with state.engine.begin() as connection:
            connection.execute(
                sa.text(
                    "INSERT INTO card (id, owner, state, code) VALUES (1, '1', '', 'new'), (2, '1', '', 'old:s3cret')"
                )
            )
        yield state


STATEMENTS: dict[str, t.Callable[[], t.Any]] = {
    "update": lambda: sa.update(Card).values(state="done"),
    "update with a list": lambda: sa.update(Card),
    "update that makes it so": lambda: sa.update(Card).where(Card.id == 1).values(code="old:s3cret"),
    "delete": lambda: sa.delete(Card),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_it_is_let_through_with_a_word(state: AppState, name: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    rows = [{"id": number, "state": "done"} for number in (1, 2)] if "list" in name else None
    db.session.execute(STATEMENTS[name](), rows)
    db.session.commit()

    with state.engine.connect() as connection:
        left = connection.execute(sa.text("SELECT id, state, code FROM card ORDER BY id")).all()
    assert [tuple(row) for row in left] == {
        "delete": [],
        "update that makes it so": [(1, "", "old:s3cret"), (2, "", "old:s3cret")],
    }.get(name, [(1, "done", "new"), (2, "done", "old:s3cret")])
    [said] = [each.getMessage() for each in caplog.records if "bulk.not_captured" in each.getMessage()]
    assert "Card.code cannot be read: ValueError" in said
    assert "s3cret" not in said
    assert recorded(state) == []


def test_readable_rows_have_events(state: AppState) -> None:
    db.session.execute(sa.update(Card).where(Card.id == 1).values(state="done"))
    db.session.commit()

    assert [message.entity_id for message in recorded(state)] == ["1"]


def test_what_the_host_itself_cannot_read_is_its_own_error_and_runs_once(state: AppState) -> None:
    if not state.engine.dialect.update_returning:
        pytest.skip("MariaDB has RETURNING for INSERT and DELETE alone")
    sent: list[str] = []
    sa.event.listen(state.engine, "before_cursor_execute", lambda *args: sent.append(args[2]))
    statement = sa.update(Card).where(Card.id == 1).values(code="old:s3cret").returning(Card.code)
    with pytest.raises(ValueError, match="old release"):
        db.session.execute(statement).all()

    assert len([each for each in sent if each.startswith("UPDATE")]) == 1
