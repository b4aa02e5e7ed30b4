"""Two apps, two databases, several kinds of session: an event is written with its change, or the change is refused."""

from __future__ import annotations

import contextlib
import typing as t
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, sessionmaker

from flask_webhooks import Webhooks
from flask_webhooks.errors import ConfigurationError, EmitError
from flask_webhooks.state import AppState, state_of
from tests.capture.conftest import NOWHERE, SERVERS, events
from tests.host import Client, Invoice, db, make_host, make_transactional
from tests.stage import recorded, subscribe

pytestmark = pytest.mark.usefixtures("no_other_app")


@pytest.fixture
def second(tmp_path: Path) -> t.Iterator[Flask]:
    """Another app with the same models, on a database of its own, which has a subscription too."""
    app = make_host(f"sqlite:///{tmp_path / 'second.sqlite'}", tmp_path / "second")
    with app.app_context():
        subscribe(state_of(app), NOWHERE, "invoices.*", "clients.*")
    yield app
    with app.app_context():
        db.session.remove()
        db.engine.dispose()
    state_of(app).transport.close()


@pytest.mark.usefixtures("listening")
class TestTwoApps:
    def test_each_gets_what_is_its_own(self, state: AppState, second: Flask) -> None:
        with second.app_context():
            db.session.add(Invoice(owner="1", number="second"))
            db.session.commit()
        db.session.add(Invoice(owner="1", number="first"))
        db.session.commit()

        assert ["first" in message.data for message in recorded(state)] == [True]
        assert ["second" in message.data for message in recorded(state_of(second))] == [True]

    def test_one_inside_the_other_while_both_have_something_open(
        self, state: AppState, second: Flask
    ) -> None:
        db.session.add(Invoice(owner="1", number="first"))
        db.session.flush()
        with second.app_context():
            db.session.add(Invoice(owner="1", number="second"))
            db.session.commit()
        db.session.rollback()

        assert events(state) == []
        assert events(state_of(second)) == ["invoices.created"]

    def test_a_plain_session_belongs_to_the_app_of_its_engine(self, state: AppState, second: Flask) -> None:
        for each in (state, state_of(second)):
            with Session(each.engine) as session:
                session.add(Invoice(owner="1"))
                session.commit()

        assert events(state) == events(state_of(second)) == ["invoices.created"]

    def test_a_session_over_both_databases_writes_to_both(self, state: AppState, second: Flask) -> None:
        other = state_of(second)
        with Session(binds={Invoice: state.engine, Client: other.engine}) as session:
            session.add_all([Invoice(owner="1"), Client(owner="1", name="x")])
            session.commit()

        assert events(state) == ["invoices.created"]
        assert events(other) == ["clients.created"]

    def test_a_session_over_a_database_that_has_no_app_is_refused(
        self, state: AppState, tmp_path: Path
    ) -> None:
        engine = sa.create_engine(f"sqlite:///{tmp_path / 'stranger.sqlite'}")
        db.metadata.create_all(engine)
        with Session(binds={Invoice: state.engine, Client: engine}) as session:
            session.add_all([Invoice(owner="1"), Client(owner="1", name="x")])
            with pytest.raises(EmitError, match=r"stranger\.sqlite"):
                session.commit()
        engine.dispose()

        assert events(state) == []


@pytest.mark.usefixtures("listening")
class TestOtherDatabases:
    def test_one_without_an_app_is_refused(self, state: AppState, tmp_path: Path) -> None:
        engine = sa.create_engine(f"sqlite:///{tmp_path / 'stranger.sqlite'}")
        db.metadata.create_all(engine)
        with Session(engine) as session:
            session.add(Invoice(owner="1"))
            with pytest.raises(EmitError, match=r"stranger\.sqlite.*info="):
                session.commit()
        engine.dispose()

    def test_unless_it_opts_out(self, state: AppState, tmp_path: Path) -> None:
        engine = sa.create_engine(f"sqlite:///{tmp_path / 'stranger.sqlite'}")
        db.metadata.create_all(engine)
        with sessionmaker(engine, info={"webhooks": False})() as session:
            session.add(Invoice(owner="1"))
            session.commit()
        engine.dispose()

        assert events(state) == []

    @pytest.mark.usefixtures("no_other_app")
    def test_another_engine_on_the_same_database_is_served(self, state: AppState) -> None:
        engine = sa.create_engine(state.engine.url)
        if engine.dialect.name == "sqlite":
            make_transactional(engine)
        with Session(engine) as session:
            session.add(Invoice(owner="1"))
            session.commit()
        engine.dispose()

        assert events(state) == ["invoices.created"]

    def test_a_model_on_another_bind_is_refused_at_start(self, tmp_path: Path) -> None:
        from flask_sqlalchemy import SQLAlchemy

        split = SQLAlchemy()

        class Far(split.Model):  # type: ignore[name-defined,misc]
            __bind_key__ = "far"
            id = sa.Column(sa.Integer, primary_key=True)

        catalog = tmp_path / "far.yaml"
        catalog.write_text(
            "version: 1\ntitle: Far\nchannels:\n  fars:\n    title: Fars\n"
            f"    model: {__name__}:FAR\n    events: [created]\n"
        )
        globals()["FAR"] = Far
        app = Flask("far", root_path=str(tmp_path))
        app.config.update(
            SECRET_KEY="x",
            SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path / 'near.sqlite'}",
            SQLALCHEMY_BINDS={"far": f"sqlite:///{tmp_path / 'far.sqlite'}"},
            WEBHOOKS_CATALOG=str(catalog),
        )
        split.init_app(app)
        with pytest.raises(ConfigurationError, match="another bind"):
            Webhooks(app, split)


@pytest.fixture
def stranger(tmp_path: Path) -> t.Iterator[sa.Engine]:
    """A database of the host's own, on which there is no table of ours."""
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'stranger.sqlite'}")
    make_transactional(engine)
    ours = {name for name in db.metadata.tables if name.startswith("webhook_")}
    db.metadata.create_all(engine, [table for name, table in db.metadata.tables.items() if name not in ours])
    yield engine
    engine.dispose()


class TestWhileNobodyListens:
    """Nothing is refused for which no subscription can exist."""

    @pytest.mark.parametrize("record", ["listened", "all"])
    def test_another_database_is_let_through(
        self,
        make_app: t.Callable[..., Flask],
        stranger: sa.Engine,
        record: str,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        app = make_app(WEBHOOKS_RECORD=record)
        with app.app_context(), Session(stranger) as session:
            subscribe(state_of(app), NOWHERE, "clients.*")
            session.add_all(Invoice(id=number, owner="1") for number in (1, 2, 3))
            session.commit()
            session.get_one(Invoice, 1).number = "x"
            session.delete(session.get_one(Invoice, 2))
            session.commit()
            session.execute(sa.update(Invoice).values(number="y"))
            session.execute(sa.delete(Invoice).where(Invoice.id == 3))
            session.commit()

            assert [(row.id, row.number) for row in session.scalars(sa.select(Invoice))] == [(1, "y")]
            session.add(Client(owner="1", name="x"))
            with pytest.raises(EmitError, match=r"Client was written to .*stranger\.sqlite"):
                session.commit()
        assert recorded(state_of(app)) == []
        assert caplog.text.count("database.other") == 1
        assert state_of(app).unrecorded["database"] >= 2

    def test_what_is_emitted_there_too(self, state: AppState, stranger: sa.Engine) -> None:
        with Session(stranger) as session:
            Webhooks().emit("reports.ready", {"id": 1}, owner="1", session=session)
            session.commit()
            subscribe(state, NOWHERE, "reports.*")
            Webhooks().emit("reports.ready", {"id": 1}, owner="1", session=session)
            with pytest.raises(EmitError, match=r"stranger\.sqlite"):
                session.commit()

    def test_a_session_over_both(self, state: AppState, stranger: sa.Engine) -> None:
        subscribe(state, NOWHERE, "invoices.*")
        with Session(binds={Invoice: state.engine, Client: stranger}) as session:
            session.add_all([Invoice(owner="1"), Client(owner="1", name="x")])
            session.commit()
            for row in session.scalars(sa.select(Client)).all():
                session.delete(row)
            session.add(Invoice(owner="1"))
            session.commit()

        assert events(state) == ["invoices.created"] * 2


@pytest.mark.usefixtures("listening")
class TestSessionsOfTests:
    @pytest.mark.parametrize("mode", ["create_savepoint", "conditional_savepoint", "rollback_only"])
    def test_a_transaction_around_the_session(self, state: AppState, mode: t.Any) -> None:
        with state.engine.connect() as connection:
            outer = connection.begin()
            with Session(connection, join_transaction_mode=mode) as session:
                session.add(Invoice(owner="1", number="a"))
                session.commit()
                session.add(Invoice(owner="1", number="b"))
                session.flush()
                if mode == "create_savepoint":
                    session.rollback()
                else:
                    session.commit()
            inside = connection.scalar(sa.text("SELECT count(*) FROM webhook_messages"))
            outer.rollback()

        assert inside == (1 if mode == "create_savepoint" else 2)
        assert events(state) == []


@pytest.mark.usefixtures("listening")
@pytest.mark.parametrize("database_url", SERVERS, indirect=True)
class TestTwoPhases:
    """Of which SQLite knows nothing."""

    def test_a_message_is_prepared_with_its_change(self, state: AppState) -> None:
        with Session(state.engine, twophase=True) as session:
            session.add(Invoice(owner="1"))
            session.prepare()
            between = events(state)
            session.commit()
            session.add(Invoice(owner="1"))
            session.prepare()
            session.rollback()

        assert between == []
        assert events(state) == ["invoices.created"]

    def test_a_plain_commit(self, state: AppState) -> None:
        with Session(state.engine, twophase=True) as session:
            with session.begin_nested():
                session.add(Invoice(owner="1"))
            session.add(Invoice(owner="1"))
            session.commit()

        assert events(state) == ["invoices.created"] * 2


@pytest.mark.usefixtures("listening")
class TestHostListeners:
    @pytest.fixture(params=["before ours", "after ours", "on the instance"])
    def late(self, request: pytest.FixtureRequest, app: Flask, listening: None) -> t.Iterator[None]:
        """A listener of the host's that adds an invoice to each commit."""

        def add(session: Session) -> None:
            if not session.in_nested_transaction():
                session.add(Invoice(owner="1", number="late"))

        target: t.Any = Session if request.param != "on the instance" else db.session()
        sa.event.listen(target, "before_commit", add, insert=request.param == "before ours")
        yield
        sa.event.remove(target, "before_commit", add)

    @pytest.mark.usefixtures("late")
    def test_what_they_add_is_captured(self, state: AppState) -> None:
        db.session.add(Invoice(owner="1", number="early"))
        db.session.commit()

        assert sorted('"late"' in message.data for message in recorded(state)) == [False, True]

    @pytest.mark.usefixtures("late")
    def test_also_when_nothing_else_changed(self, state: AppState) -> None:
        db.session.execute(sa.select(Invoice))
        db.session.commit()

        assert events(state) == ["invoices.created"]

    def test_what_they_add_in_a_flush_is_captured(self, state: AppState) -> None:
        def add(session: Session, *_: t.Any) -> None:
            if len(session.new) == 1:
                session.add(Invoice(owner="1", number="more"))

        sa.event.listen(Session, "before_flush", add)
        db.session.add(Invoice(owner="1"))
        db.session.commit()
        sa.event.remove(Session, "before_flush", add)

        assert events(state) == ["invoices.created"] * 2


@pytest.mark.usefixtures("listening")
class TestCommitsThatFail:
    @pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
    def test_at_the_database(self, state: AppState) -> None:
        """A constraint that only COMMIT checks; MariaDB has none of these."""
        with state.engine.begin() as connection:
            reference = "REFERENCES client (id) DEFERRABLE INITIALLY DEFERRED"
            connection.exec_driver_sql(f"CREATE TABLE deferred (client_id INTEGER {reference})")
        db.session.add(Invoice(owner="1"))
        db.session.execute(sa.text("INSERT INTO deferred VALUES (999)"))
        with pytest.raises(IntegrityError):
            db.session.commit()
        db.session.rollback()
        db.session.add(Invoice(owner="1", number="B"))
        db.session.commit()

        assert ['"B"' in message.data for message in recorded(state)] == [True]

    def test_and_are_tried_again(self, state: AppState) -> None:
        subscribe(state, NOWHERE, "invoices.created", includes=["lines"])

        invoice = Invoice(owner="1", number="x" * (state.settings.payload_limit + 1))
        db.session.add(invoice)
        with pytest.raises(EmitError, match="WEBHOOKS_PAYLOAD_LIMIT"):
            db.session.commit()
        invoice.number = "short"
        db.session.commit()

        assert ['"short"' in message.data for message in recorded(state)] == [True]

    def test_in_a_flush(self, state: AppState) -> None:
        db.session.add(Client(owner="1", name="a"))
        db.session.flush()
        db.session.add(Invoice(owner=None))
        with pytest.raises(IntegrityError):
            db.session.commit()
        db.session.rollback()
        db.session.commit()

        assert events(state) == []

    def test_begin_blocks(self, state: AppState) -> None:
        with Session(state.engine) as session:
            with session.begin():
                session.add(Invoice(id=1, owner="1"))
            with contextlib.suppress(ZeroDivisionError), session.begin():
                session.get_one(Invoice, 1).number = "never"
                session.flush()
                raise ZeroDivisionError
            with session.begin():
                session.get_one(Invoice, 1).number = "x"

        assert events(state) == ["invoices.created", "invoices.updated"]

    def test_a_session_that_is_used_again(self, state: AppState) -> None:
        session = Session(state.engine)
        for end in (session.commit, session.rollback, session.close, session.commit):
            session.add(Invoice(owner="1"))
            session.flush()
            end()
        session.close()

        assert events(state) == ["invoices.created"] * 2
