"""A test that moves an app to another database after `init_app`, and two apps that share models but not databases."""

from __future__ import annotations

import threading
import typing as t
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import Session

from flask_webhooks import ConfigurationError, Webhooks
from flask_webhooks.models import Subscription
from flask_webhooks.state import AppState, state_of
from tests.host import Client, Invoice, db, make_host, make_transactional
from tests.stage import recorded, subscribe

NOWHERE = "http://127.0.0.1:9/"
Lead = t.Callable[[Flask, sa.Engine, pytest.MonkeyPatch], None]


def by_place(app: Flask, engine: sa.Engine, _: pytest.MonkeyPatch) -> None:
    """Put the engine where Flask-SQLAlchemy looks."""
    with app.app_context():
        db.engines[None] = engine


def by_patch(_: Flask, engine: sa.Engine, patch: pytest.MonkeyPatch) -> None:
    """Patch the property."""
    patch.setattr(SQLAlchemy, "engines", property(lambda _: {None: engine}))


def by_init(app: Flask, engine: sa.Engine, _: pytest.MonkeyPatch) -> None:
    """Initialise Flask-SQLAlchemy once more."""
    del app.extensions["sqlalchemy"]
    app.config["SQLALCHEMY_DATABASE_URI"] = engine.url.render_as_string(hide_password=False)
    db.init_app(app)
    with app.app_context():
        make_transactional(db.engine)


@pytest.fixture
def other(tmp_path: Path) -> t.Iterator[sa.Engine]:
    """Another database, with all tables."""
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'elsewhere.sqlite'}")
    make_transactional(engine)
    db.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
class TestAnotherDatabase:
    @pytest.fixture(params=[by_place, by_patch, by_init], ids=["place", "patch", "init"])
    def led(
        self,
        request: pytest.FixtureRequest,
        make_app: t.Callable[..., Flask],
        other: sa.Engine,
        monkeypatch: pytest.MonkeyPatch,
    ) -> t.Iterator[AppState]:
        """An app that was led there after its first commit."""
        app = make_app()
        state = state_of(app)
        subscribe(state, NOWHERE, "invoices.*")
        with app.app_context():
            db.session.add(Invoice(owner="1"))
            db.session.commit()
            db.session.remove()
        before = state.engine
        request.param(app, other, monkeypatch)
        with app.app_context():
            yield state
            db.session.remove()
            db.engine.dispose()
        before.dispose()

    def test_events_go_where_the_change_goes(self, led: AppState, other: sa.Engine) -> None:
        db.session.add(Invoice(owner="1", number="unheard"))
        db.session.commit()
        subscribe(led, NOWHERE, "invoices.*")
        db.session.add(Invoice(owner="1", number="heard"))
        db.session.commit()

        assert led.engine.url == other.url
        [message] = recorded(led)
        assert '"heard"' in message.data

    def test_threads_of_a_worker_follow(self, led: AppState, other: sa.Engine) -> None:
        subscribe(led, NOWHERE, "invoices.*")
        found: list[t.Any] = []

        def look() -> None:  # a thread has no context of the app's
            with led.own_engine.connect() as connection:
                found.append(
                    (connection.engine.url, connection.scalar(sa.select(sa.func.count(Subscription.id))))
                )

        thread = threading.Thread(target=look)
        thread.start()
        thread.join()

        assert found == [(other.url, 1)]


def test_a_second_call_says_what_to_do(app: Flask) -> None:
    with pytest.raises(ConfigurationError, match="Call init_app once for each app"):
        Webhooks().init_app(app, db)


class TestTwoApps:
    @pytest.fixture
    def clients(self, tmp_path: Path) -> str:
        """A catalogue of clients alone."""
        path = tmp_path / "guest.yaml"
        path.write_text(
            "version: 1\ntitle: G\nchannels:\n"
            "  clients: {title: C, model: 'tests.host:Client', owner: owner, events: [created]}\n"
        )
        return str(path)

    @pytest.fixture
    def guest(self, clients: str, tmp_path: Path) -> t.Iterator[Flask]:
        """An app with the same models, of which it captures clients alone."""
        url = f"sqlite:///{tmp_path / 'guest.sqlite'}"
        app = make_host(url, tmp_path / "guest", WEBHOOKS_CATALOG=clients)
        yield app
        with app.app_context():
            db.session.remove()
            db.engine.dispose()

    def test_what_only_the_first_captures_is_nothing_to_the_second(
        self, state: AppState, guest: Flask
    ) -> None:
        subscribe(state, NOWHERE, "*")
        subscribe(state_of(guest), NOWHERE, "*")
        with guest.app_context():
            db.session.add_all([Invoice(owner="1"), Client(owner="1", name="a")])
            db.session.commit()
            db.session.execute(sa.update(Invoice).values(number="x"))
            db.session.commit()

        assert recorded(state) == []
        assert [message.event for message in recorded(state_of(guest))] == ["clients.created"]

    def test_databases_in_memory_are_not_the_same(self, clients: str, tmp_path: Path) -> None:
        first = make_host("sqlite://", tmp_path / "first")
        second = make_host("sqlite://", tmp_path / "second", WEBHOOKS_CATALOG=clients)
        with second.app_context():
            subscribe(state_of(second), NOWHERE, "*")
            db.session.add_all([Invoice(owner="1"), Client(owner="1", name="a")])
            db.session.commit()
            db.session.remove()

            assert [message.event for message in recorded(state_of(second))] == ["clients.created"]
        for app in (first, second):
            with app.app_context():
                db.engine.dispose()

    def test_an_engine_of_neither_still_belongs_to_who_captures(self, state: AppState, guest: Flask) -> None:
        subscribe(state, NOWHERE, "invoices.*")
        engine = sa.create_engine(state.engine.url)
        if engine.dialect.name == "sqlite":
            make_transactional(engine)
        with Session(engine) as session:
            session.add(Invoice(owner="1"))
            session.commit()
        engine.dispose()

        assert [message.event for message in recorded(state)] == ["invoices.created"]
