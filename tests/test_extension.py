"""`Webhooks`: wiring, its refusals, `emit` and `muted`, two apps in one process."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from flask_webhooks import (
    CatalogError,
    ConfigurationError,
    OwnerMissingError,
    PayloadError,
    PayloadTooLargeError,
    UnknownEventError,
    Webhooks,
)
from flask_webhooks.models import Message
from flask_webhooks.state import AppState, state_of
from flask_webhooks.testing import recorded as recorded_inside
from tests import made_models
from tests.host import CATALOG, Invoice, Status, db, make_host
from tests.stage import deliveries, recorded, subscribe

MakeApp = t.Callable[..., Flask]


class TestInit:
    def test_the_database_comes_first(self) -> None:
        app = Flask("early")
        app.config["SECRET_KEY"] = "x"

        with pytest.raises(ConfigurationError, match=r"Call db\.init_app\(app\) before"):
            Webhooks().init_app(app, db)

    def test_once_for_each_app(self, app: Flask) -> None:
        with pytest.raises(ConfigurationError, match="already"):
            Webhooks().init_app(app, db)

    def test_an_app_without_the_database_is_refused(self) -> None:
        with pytest.raises(ConfigurationError, match=r"Webhooks\(app, db\)"):
            Webhooks(Flask("x"))

    def test_a_wrong_setting_stops_it(self, make_app: MakeApp) -> None:
        with pytest.raises(ConfigurationError, match="WEBHOOKS_TIMEOUT is 15"):
            make_app(WEBHOOKS_TIMEOUT=15)

    def test_a_key_is_needed(self, make_app: MakeApp) -> None:
        with pytest.raises(ConfigurationError, match="Set SECRET_KEY"):
            make_app(SECRET_KEY=None)

    def test_a_catalogue_with_mistakes_stops_it(self, make_app: MakeApp, tmp_path: Path) -> None:
        path = tmp_path / "bad.yaml"
        path.write_text(CATALOG.read_text().replace("tests.host:Invoice\n", "tests.host:Invoise\n"))

        with pytest.raises(CatalogError, match="Invoise"):
            make_app(WEBHOOKS_CATALOG=str(path))

    def test_an_unregistered_format_stops_it(self, make_app: MakeApp, tmp_path: Path) -> None:
        path = tmp_path / "custom.yaml"
        path.write_text(CATALOG.read_text().replace("format: minimal", "format: acme"))

        with pytest.raises(ConfigurationError, match=r"reports\.failed uses the format 'acme'"):
            make_app(WEBHOOKS_CATALOG=str(path))

    def test_a_model_on_another_bind_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="another bind"):
            _app_with_two_binds(tmp_path)

    def test_a_second_app_is_not_seen_by_the_first(self, make_app: MakeApp, tmp_path: Path) -> None:
        one = make_app()
        other = make_host(f"sqlite:///{tmp_path / 'other.sqlite'}", tmp_path / "other")
        for app in (one, other):
            subscribe(state_of(app), "http://127.0.0.1:9/", "invoices.*")
        with other.app_context():
            db.session.add(Invoice(owner="1"))
            db.session.commit()
            db.session.remove()

        assert [message.event for message in recorded(state_of(one))] == []
        assert [message.event for message in recorded(state_of(other))] == ["invoices.created"]
        state_of(other).engine.dispose()

    def test_nothing_of_an_app_stays_on_the_extension(self, make_app: MakeApp) -> None:
        webhooks = Webhooks()
        make_app(webhooks=webhooks)

        assert not [value for value in vars(webhooks).values() if isinstance(value, Flask | AppState)]


def _app_with_two_binds(tmp_path: Path) -> None:
    class Base(DeclarativeBase):
        pass

    own = SQLAlchemy(model_class=Base)

    class Archived(own.Model):  # type: ignore[name-defined]
        __bind_key__ = "archive"
        id: Mapped[int] = mapped_column(primary_key=True)
        owner: Mapped[str]

    made_models.Archived = Archived
    (tmp_path / "webhooks.yaml").write_text(
        "version: 1\ntitle: T\nchannels:\n"
        "  archive: {title: A, model: 'tests.made_models:Archived', owner: owner, events: [created]}\n"
    )
    app = Flask("two", root_path=str(tmp_path), instance_path=str(tmp_path))
    app.config.update(
        SECRET_KEY="x",
        SQLALCHEMY_DATABASE_URI="sqlite://",
        SQLALCHEMY_BINDS={"archive": f"sqlite:///{tmp_path / 'archive.sqlite'}"},
    )
    own.init_app(app)
    Webhooks(app, own)


@pytest.fixture
def webhooks() -> Webhooks:
    """The extension of the app in this test."""
    return Webhooks()


@pytest.fixture
def app(make_app: MakeApp, webhooks: Webhooks) -> t.Iterator[Flask]:
    """A host app of `webhooks` inside its context."""
    app = make_app(webhooks=webhooks)
    with app.app_context():
        yield app


class TestEmit:
    def test_it_joins_the_transaction(self, state: AppState, webhooks: Webhooks) -> None:
        subscribe(state, "http://127.0.0.1:9/", "reports.ready")
        webhooks.emit("reports.ready", {"id": 7}, owner="1")
        assert recorded(state) == []
        db.session.commit()
        webhooks.emit("reports.ready", {"id": 8}, owner="1")
        db.session.rollback()

        [message] = recorded(state)
        assert (message.event, message.data, message.entity_id) == ("reports.ready", '{"id":7}', "7")

    def test_an_instance_is_dumped_with_its_last_state(self, state: AppState, webhooks: Webhooks) -> None:
        subscribe(state, "http://127.0.0.1:9/", "invoices.sent")
        invoice = Invoice(owner="1", number="A")
        db.session.add(invoice)
        webhooks.emit("invoices.sent", invoice)
        invoice.number = "B"
        db.session.commit()

        [message] = recorded(state)
        assert json.loads(message.data)["number"] == "B"

    def test_an_unknown_event_is_an_error_at_the_call(self, app: Flask, webhooks: Webhooks) -> None:
        with pytest.raises(UnknownEventError, match=r"Did you mean reports\.ready\?"):
            webhooks.emit("reports.redy", {}, owner="1")

    def test_an_owner_is_needed(self, app: Flask, webhooks: Webhooks) -> None:
        with pytest.raises(OwnerMissingError, match=r"reports\.ready.*owner"):
            webhooks.emit("reports.ready", {})

    def test_what_json_cannot_hold_is_an_error_at_the_call(self, app: Flask, webhooks: Webhooks) -> None:
        with pytest.raises(PayloadError, match=r"reports\.ready: data\.photo is object"):
            webhooks.emit("reports.ready", {"photo": object()}, owner="1")

    def test_what_is_too_large_is_an_error_at_the_call(self, app: Flask, webhooks: Webhooks) -> None:
        with pytest.raises(PayloadTooLargeError, match=r"reports\.ready has 300011 bytes"):
            webhooks.emit("reports.ready", {"text": "x" * 300_000}, owner="1")

    def test_a_stranger_instance_is_an_error_at_the_call(self, app: Flask, webhooks: Webhooks) -> None:
        with pytest.raises(PayloadError, match=r"not the model of channel clients"):
            webhooks.emit("clients.created", Invoice(owner="1"))

    def test_a_key_counts_once(self, state: AppState, webhooks: Webhooks) -> None:
        subscribe(state, "http://127.0.0.1:9/", "reports.*")
        for _ in range(2):
            webhooks.emit("reports.ready", {"id": 1}, owner="1", dedupe_key="run-1")
            db.session.commit()
        webhooks.emit("reports.failed", {"id": 1}, owner="1", dedupe_key="run-1")
        db.session.commit()

        assert [message.event for message in recorded(state)] == ["reports.ready", "reports.failed"]
        assert len(deliveries(state)) == 2


class TestMuted:
    def test_the_block_is_the_border(self, state: AppState, webhooks: Webhooks) -> None:
        subscribe(state, "http://127.0.0.1:9/", "invoices.*")
        db.session.add(Invoice(owner="1", number="before"))
        with webhooks.muted():
            db.session.add(Invoice(owner="1", number="inside"))
        db.session.add(Invoice(owner="1", number="after"))
        db.session.commit()

        assert [json.loads(message.data)["number"] for message in recorded(state)] == ["before", "after"]


def test_recorded_shows_what_would_be_sent(app: Flask, webhooks: Webhooks) -> None:
    with recorded_inside(webhooks) as messages:
        invoice = Invoice(owner="1", number="A")
        db.session.add(invoice)
        db.session.commit()
        db.session.add(Invoice(owner="1", number="never"))
        db.session.flush()
        db.session.rollback()
        invoice.status = Status.SENT
        db.session.commit()

    assert [message.event for message in messages] == [
        "invoices.created",
        "invoices.updated",
        "invoices.sent",
    ]
    assert messages[0].data["number"] == "A"
    assert messages[0].owner == "1"


def test_the_environment_may_be_chosen_by_event(make_app: MakeApp) -> None:
    chosen: list[tuple[str, str]] = []

    def choose(event: str, data: t.Any, owner: str) -> str:
        chosen.append((event, owner))
        return "production" if data["number"] == "live" else "staging"

    app = make_app(WEBHOOKS_ENVIRONMENT=choose)
    state = state_of(app)
    subscribe(state, "http://127.0.0.1:9/", "invoices.created")
    with app.app_context():
        db.session.add_all([Invoice(owner="1", number="live"), Invoice(owner="1", number="trial")])
        db.session.commit()

    assert chosen == [("invoices.created", "1")] * 2
    assert {message.environment for message in recorded(state)} == {"production", "staging"}
    [delivery] = deliveries(state)  # the subscription is for staging
    with state.engine.connect() as connection:
        of = sa.select(Message.environment).where(Message.id == delivery.message_id)
        assert connection.scalar(of) == "staging"
