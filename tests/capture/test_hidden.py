"""An owner is found in spite of the host's query filters; an event without one is logged if a subscription matches."""

from __future__ import annotations

import json
import logging
import typing as t
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, with_loader_criteria

from flask_webhooks.capture import emit_many
from flask_webhooks.capture.registry import registry_of
from flask_webhooks.models import Listener
from flask_webhooks.state import AppState
from tests.capture.conftest import NOWHERE, capturing, counting
from tests.stage import recorded, subscribe


class Base(DeclarativeBase):
    """Root of the models."""


db = SQLAlchemy(model_class=Base)
S = db.session


class Firm(db.Model):  # type: ignore[name-defined]
    """Has the owner."""

    __tablename__ = "hidden_firm"

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str | None] = mapped_column(sa.String(20), default="1")
    is_gone: Mapped[bool] = mapped_column(default=False)


class Client(db.Model):  # type: ignore[name-defined]
    """May be hidden too."""

    __tablename__ = "hidden_client"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(20), default="")
    is_gone: Mapped[bool] = mapped_column(default=False)
    firm_id: Mapped[int] = mapped_column(sa.ForeignKey("hidden_firm.id"))
    firm: Mapped[Firm] = relationship()


class Deal(db.Model):  # type: ignore[name-defined]
    """Belongs to whom its client's firm belongs to."""

    __tablename__ = "hidden_deal"

    id: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[str] = mapped_column(sa.String(20), default="")
    client_id: Mapped[int | None] = mapped_column(sa.ForeignKey("hidden_client.id"))
    client: Mapped[Client | None] = relationship()


CATALOG = """\
version: 1
channels:
  deals:
    model: tests.capture.test_hidden:Deal
    owner: client.firm.owner
    events: [created, updated, deleted]
    includes: [client]
"""


@pytest.fixture
def state(database_url: str, tmp_path: Path) -> Iterator[AppState]:
    """Owner 1 listens; a filter hides clients and firms that are gone."""
    sa.event.listen(Session, "do_orm_execute", hide)
    with capturing(db, CATALOG, database_url, tmp_path) as state:
        subscribe(state, NOWHERE, "*", includes=["client"])
        S.add(Firm(id=1, is_gone=True))
        S.add_all(Client(id=number, firm_id=1, name="gone", is_gone=True) for number in (1, 2))
        S.add_all(Deal(id=number, client_id=1) for number in range(1, 4))
        with_all = len(recorded(state))
        assert with_all == 0
        S.commit()
        yield state
    sa.event.remove(Session, "do_orm_execute", hide)


def hide(execution: t.Any) -> None:
    """A soft delete as SQLAlchemy's documentation has it."""
    if execution.is_select:
        execution.statement = execution.statement.options(
            with_loader_criteria(Client, Client.is_gone.is_(False), include_aliases=True),
            with_loader_criteria(Firm, Firm.is_gone.is_(False), include_aliases=True),
        )


def commit_and_read(state: AppState) -> list[tuple[str, str | None]]:
    """Commit; return event and key of the new messages of owner 1."""
    before = len(recorded(state))
    S.commit()
    return sorted((each.event, each.entity_id) for each in recorded(state)[before:] if each.owner == "1")


@pytest.mark.parametrize("is_loaded", [True, False])
def test_an_update(state: AppState, is_loaded: bool) -> None:
    deal = S.get_one(Deal, 1)
    if is_loaded:
        assert deal.client is None
    deal.note = "n"

    assert commit_and_read(state) == [("deals.updated", "1")]


@pytest.mark.parametrize("is_flushed", [True, False])
@pytest.mark.parametrize("is_loaded", [True, False])
def test_a_deletion(state: AppState, is_flushed: bool, is_loaded: bool) -> None:
    deal = S.get_one(Deal, 1)
    if is_loaded:
        assert deal.client is None
    S.delete(deal)
    if is_flushed:
        S.flush()

    assert commit_and_read(state) == [("deals.deleted", "1")]


def test_a_creation(state: AppState) -> None:
    S.add(Deal(id=9, client_id=1))

    assert commit_and_read(state) == [("deals.created", "9")]


def test_bulk_statements(state: AppState) -> None:
    S.execute(sa.update(Deal).where(Deal.id == 1).values(note="n"))
    S.execute(sa.delete(Deal).where(Deal.id == 2))

    assert commit_and_read(state) == [("deals.deleted", "2"), ("deals.updated", "1")]


def test_what_is_emitted(state: AppState) -> None:
    emit_many(state, S(), "deals.updated", [S.get_one(Deal, 1)], owner=None)

    assert commit_and_read(state) == [("deals.updated", "1")]


def test_to_another_hidden_one_of_the_same_owner_is_no_move(state: AppState) -> None:
    S.get_one(Deal, 1).client_id = 2

    assert commit_and_read(state) == [("deals.updated", "1")]


def test_data_and_includes_show_what_the_host_sees(state: AppState) -> None:
    """The filter goes on to hide what hangs on a row."""
    deal = S.get_one(Deal, 1)
    deal.note = "n"
    commit_and_read(state)

    assert json.loads(recorded(state)[-1].extras or "{}") == {"client": None}
    assert S.get(Client, 1) is None


def test_many_cost_no_more_statements(state: AppState) -> None:
    for deal in S.scalars(sa.select(Deal)).all():
        deal.note = "n"
    with counting(state.engine) as sent:
        assert len(commit_and_read(state)) == 3

    assert len([each for each in sent if "FROM hidden_firm" in each]) <= 2
    assert len([each for each in sent if "FROM hidden_client" in each and "IS" not in each]) == 1


class TestWithoutAnOwner:
    def test_it_is_a_warning_and_counted(self, state: AppState, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, logger="flask_webhooks.capture")
        S.add_all(Deal(id=number, client_id=None) for number in (8, 9))

        assert commit_and_read(state) == []
        [record] = [each for each in caplog.records if each.getMessage().startswith("message.ownerless")]
        assert record.levelno == logging.WARNING
        assert "deals.created (2)" in record.getMessage()
        assert state.ownerless == {"deals.created": 2}

    def test_an_empty_text_at_the_end_of_a_path_is_none(self, state: AppState) -> None:
        S.add(Firm(id=7, owner=""))
        S.add(Client(id=7, firm_id=7))
        S.add(Deal(id=9, client_id=7))

        assert commit_and_read(state) == []
        assert state.ownerless == {"deals.created": 1}

    def test_from_one_empty_text_to_another_is_no_move(self, state: AppState) -> None:
        S.add(Firm(id=7, owner=""))
        S.add_all(Client(id=number, firm_id=7) for number in (7, 8))
        S.add(Deal(id=9, client_id=7))
        S.commit()
        S.get_one(Deal, 9).client_id = 8

        assert commit_and_read(state) == []
        assert state.ownerless == {"deals.created": 1, "deals.updated": 1}

    def test_before_our_tables_are_made_it_is_none(self, state: AppState) -> None:
        registry_of(state).renew()
        for table in reversed(db.metadata.sorted_tables):
            if table.name.startswith("webhook_"):
                table.drop(state.engine)
        S.add(Deal(id=9, client_id=None))
        S.commit()

        assert S.get(Deal, 9) is not None
        assert state.ownerless == {}

    def test_it_is_none_without_a_subscription(
        self, state: AppState, caplog: pytest.LogCaptureFixture
    ) -> None:
        with Session(state.engine) as session:
            session.execute(sa.delete(Listener))
            session.commit()
        S.add(Deal(id=9, client_id=None))

        assert commit_and_read(state) == []
        assert not [each for each in caplog.records if each.levelno >= logging.WARNING]
        assert state.ownerless == {}
