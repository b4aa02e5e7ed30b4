"""Tables in another schema or with a prefix: every statement uses those names."""

from __future__ import annotations

import itertools
import re
import typing as t
from pathlib import Path

import flask_migrate
import pytest
import sqlalchemy as sa
from flask import Flask, request
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Session

import flask_webhooks
from flask_webhooks import ConfigurationError, Principal, Webhooks, checks
from flask_webhooks.config import Settings
from flask_webhooks.models import LONGEST_PREFIX, Base, Naming, attach
from flask_webhooks.state import state_of
from flask_webhooks.worker import Coordinator
from tests.host import make_transactional
from tests.receivers import Receiver

_names = itertools.count(1)
CATALOG = """\
version: 1
channels:
  notes: {model: tests.models.test_naming:MODEL, owner: owner, events: [created, updated]}
"""


class Place:
    """A database with a second schema."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        self.schema = f"app_{next(_names)}"
        self.name = sa.make_url(url).get_backend_name()
        if self.name != "sqlite":
            self._run(f"CREATE SCHEMA {self.schema}")

    def _run(self, statement: str) -> None:
        engine = sa.create_engine(self.url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)

    def prepare(self, engine: sa.Engine) -> None:
        """SQLite has its schemas by file."""
        if self.name == "sqlite":
            make_transactional(engine)
            sa.event.listen(
                engine,
                "connect",
                lambda driver, _: driver.execute(f"ATTACH '{self.folder / self.schema}' AS {self.schema}"),
            )

    def leave(self) -> None:
        """MariaDB's schemas are databases."""
        if self.name == "mysql":
            self._run(f"DROP SCHEMA {self.schema}")


@pytest.fixture
def place(empty_database_url: str, tmp_path: Path) -> t.Iterator[Place]:
    made = Place(empty_database_url, tmp_path)
    yield made
    made.leave()


def database(schema: str | None = None) -> SQLAlchemy:
    """An extension with one model, in its own registry."""

    class Own(DeclarativeBase):
        metadata = sa.MetaData(schema=schema)

    own = SQLAlchemy(model_class=Own)

    class Note(own.Model):  # type: ignore[name-defined]
        """What the tests change."""

        __tablename__ = "notes"
        id = sa.orm.mapped_column(sa.Integer, primary_key=True)
        owner = sa.orm.mapped_column(sa.String(20))
        text = sa.orm.mapped_column(sa.String(20))

    own.Note = Note  # type: ignore[attr-defined]
    return own


def make(place: Place, own: SQLAlchemy, *, tables: bool = True, **config: t.Any) -> Flask:
    """An app on that database."""
    globals()["MODEL"] = own.Note  # type: ignore[attr-defined]
    (place.folder / "webhooks.yaml").write_text(CATALOG)
    app = Flask("naming", root_path=str(place.folder), instance_path=str(place.folder / "instance"))
    app.config.update(
        SECRET_KEY="x",
        SQLALCHEMY_DATABASE_URI=place.url,
        WEBHOOKS_ALLOW_HTTP=True,
        WEBHOOKS_ALLOWED_NETWORKS=["127.0.0.0/8"],
        **config,
    )
    own.init_app(app)
    hooks = Webhooks(app, own)
    hooks.principal_loader(lambda: Principal(request.headers["X-Owner"], {"read", "write", "secrets"}))
    with app.app_context():
        place.prepare(own.engine)
        if tables:
            own.create_all()
    return app


def close(app: Flask, own: SQLAlchemy) -> None:
    state_of(app).transport.close()
    with app.app_context():
        own.session.remove()
        own.engine.dispose()


def live(app: Flask, own: SQLAlchemy, inbox: Receiver, owner: str = "1") -> None:
    """Subscribe, change, deliver, look: what an app does all day."""
    client, headers = app.test_client(), {"X-Owner": owner}
    api = "/webhooks/api/subscriptions"
    body = {"url": inbox.url(), "events": ["notes.*"]}
    made = client.post(api, json=body, headers=headers)
    assert made.status_code == 201, made.text
    key = made.get_json()["id"]
    with app.app_context():
        row = own.Note(owner=owner, text="one")  # type: ignore[attr-defined]
        own.session.add(row)
        own.session.commit()
        row.text = "two"
        own.session.commit()
        own.session.execute(sa.update(own.Note).values(text="three"))  # type: ignore[attr-defined]
        own.session.commit()
        own.session.delete(row)
        own.session.commit()
        Webhooks().emit("notes.created", {"id": 9, "owner": owner, "text": "x"}, owner=owner, dedupe_key="k")
        own.session.commit()
        Coordinator(state_of(app), holder="here:1").run(seconds=20)
    assert client.patch(f"{api}/{key}", json={"active": False}, headers=headers).status_code == 200
    paths = [f"{api}/{key}", f"{api}/{key}/stats", "/webhooks/api/messages", "/webhooks/api/deliveries"]
    for path in [
        *paths,
        "/webhooks/console/",
        f"/webhooks/console/webhooks/{key}",
        "/webhooks/console/deliveries",
    ]:
        assert client.get(path, headers=headers).status_code == 200, path
    states = {each["state"] for each in client.get(paths[3], headers=headers).get_json()["items"]}
    assert states == {"delivered"}
    assert len(client.get(paths[2], headers=headers).get_json()["items"]) == 4
    assert client.delete(f"{api}/{key}", headers=headers).status_code == 204


def tables(app: Flask, own: SQLAlchemy, schema: str | None = None) -> set[str]:
    with app.app_context():
        return set(sa.inspect(own.engine).get_table_names(schema))


def declared(prefix: str = "webhook_") -> set[str]:
    return {name.replace("webhook_", prefix, 1) for name in Base.metadata.tables}


def test_they_follow_the_schema_of_the_apps_metadata(place: Place, inbox: Receiver) -> None:
    own = database(place.schema)
    app = make(place, own)

    live(app, own, inbox)

    assert declared() <= tables(app, own, place.schema)
    assert not declared() & tables(app, own)
    with app.app_context():
        assert checks.check_database(own.engine).findings == ()
    close(app, own)


def test_they_can_be_in_a_schema_of_their_own(place: Place, inbox: Receiver) -> None:
    own = database()
    app = make(place, own, WEBHOOKS_SCHEMA=place.schema)

    live(app, own, inbox)

    assert declared() <= tables(app, own, place.schema)
    assert tables(app, own) == {"notes"}
    close(app, own)


def test_they_can_be_called_otherwise(place: Place, inbox: Receiver) -> None:
    """Beside tables of the host's that are called like ours, and are left alone."""
    own = database(place.schema)
    theirs = [
        sa.Table(
            name, own.metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("mine", sa.String(9))
        )
        for name in declared()
    ]
    app = make(place, own, WEBHOOKS_TABLE_PREFIX="hooks_")
    with app.app_context():
        for table in theirs:
            own.session.execute(table.insert(), {"id": 1, "mine": "mine"})
        own.session.commit()

    live(app, own, inbox)

    assert declared("hooks_") | declared() <= tables(app, own, place.schema)
    with app.app_context():
        for table in theirs:
            assert own.session.execute(sa.select(table)).all() == [(1, "mine")]
        assert checks.check_database(own.engine).findings == ()
    close(app, own)


def test_a_second_app_on_the_same_extension(place: Place, inbox: Receiver) -> None:
    """With the same names they share the tables, with others each has its own."""
    own = database(place.schema)
    one, same = make(place, own), make(place, own)
    other = make(place, own, WEBHOOKS_TABLE_PREFIX="other_")

    live(one, own, inbox)
    live(same, own, inbox, owner="2")
    live(other, own, inbox, owner="3")

    counted = {}
    for prefix in ("webhook_", "other_"):
        with one.app_context():
            table = own.metadata.tables[f"{place.schema}.{prefix}messages"]
            counted[prefix] = set(own.session.scalars(sa.select(table.c.owner)))
    assert counted == {"webhook_": {"1", "2"}, "other_": {"3"}}
    for app in (one, same, other):
        close(app, own)


def test_a_session_on_an_engine_of_the_hosts_own(place: Place, inbox: Receiver) -> None:
    own = database(place.schema)
    app = make(place, own, WEBHOOKS_TABLE_PREFIX="hooks_")
    engine = sa.create_engine(place.url)
    place.prepare(engine)
    body = {"url": inbox.url(), "events": ["notes.*"]}
    app.test_client().post("/webhooks/api/subscriptions", json=body, headers={"X-Owner": "1"})

    with app.app_context(), Session(engine) as session:
        session.add(own.Note(owner="1", text="x"))  # type: ignore[attr-defined]
        session.commit()

    answer = app.test_client().get("/webhooks/api/messages", headers={"X-Owner": "1"})
    assert [each["event"] for each in answer.get_json()["items"]] == ["notes.created"]
    engine.dispose()
    close(app, own)


@pytest.mark.filterwarnings("ignore:'get_engine' is deprecated:DeprecationWarning")  # Flask-Migrate's env.py
@pytest.mark.parametrize("prefix", ["webhook_", "a_prefix_of_16__"])
def test_migrations_make_them(place: Place, prefix: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    own = database()
    app = make(place, own, tables=False, WEBHOOKS_TABLE_PREFIX=prefix, WEBHOOKS_SCHEMA=place.schema)
    folder = str(place.folder / "migrations")
    options: dict[str, t.Any] = {
        "include_schemas": True,
        "include_name": lambda name, kind, _: kind != "schema" or name in (None, place.schema),
    }
    flask_migrate.Migrate(app, own, **options)
    with app.app_context():
        flask_migrate.init(folder)
        flask_migrate.migrate(folder)
        flask_migrate.upgrade(folder)
        assert declared(prefix) <= set(sa.inspect(own.engine).get_table_names(place.schema))
        with own.engine.connect() as connection:
            context = MigrationContext.configure(connection, opts=options)
            left = [each for each in compare_metadata(context, own.metadata) if "alembic" not in str(each)]
        assert left == []
        own.session.execute(sa.text(f"DELETE FROM {place.schema}.{prefix}subscriptions"))
    close(app, own)


# ---- refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schema", [None, "app"])
@pytest.mark.parametrize("name", sorted(Base.metadata.tables))
def test_a_table_of_the_hosts_that_is_called_like_ours_is_refused(name: str, schema: str | None) -> None:
    metadata = sa.MetaData(schema=schema)
    sa.Table(name, metadata, sa.Column("id", sa.Integer, primary_key=True))

    with pytest.raises(ConfigurationError, match=f"{name}.*WEBHOOKS_TABLE_PREFIX"):
        attach(metadata)


def test_a_model_of_the_hosts_is_refused_at_start(tmp_path: Path) -> None:
    own = database()

    class Subscription(own.Model):  # type: ignore[name-defined]
        __tablename__ = "webhook_subscriptions"
        id = sa.orm.mapped_column(sa.Integer, primary_key=True)

    place = Place(f"sqlite:///{tmp_path / 'test.sqlite'}", tmp_path)
    with pytest.raises(ConfigurationError, match="WEBHOOKS_TABLE_PREFIX"):
        make(place, own)
    close_with = make(place, own, WEBHOOKS_TABLE_PREFIX="hooks_")
    close(close_with, own)


def test_one_engine_is_of_one_naming() -> None:
    dialect = sa.create_engine("sqlite://").dialect
    Naming().apply(dialect)
    Naming().apply(dialect)

    with pytest.raises(ConfigurationError, match="WEBHOOKS_TABLE_PREFIX"):
        Naming(prefix="other_").apply(dialect)


@pytest.mark.parametrize(
    "value", ["", "A_", "1_", "hooks-", 'h"', "x" * 17, "é_", None, 1, "sqlite_", "pg_", "h ", "h.", "h\n"]
)
def test_a_prefix_is_a_plain_word(value: t.Any) -> None:
    with pytest.raises(ConfigurationError, match="WEBHOOKS_TABLE_PREFIX"):
        Settings.read({"WEBHOOKS_TABLE_PREFIX": value})


@pytest.mark.parametrize("value", ["", "a b", 'a"b', "a.b", "1a", "a;b", 1, "x" * 64, "a\n"])
def test_a_schema_is_a_plain_word(value: t.Any) -> None:
    with pytest.raises(ConfigurationError, match="WEBHOOKS_SCHEMA"):
        Settings.read({"WEBHOOKS_SCHEMA": value})


def test_every_name_fits_with_the_longest_prefix() -> None:
    metadata = sa.MetaData()
    attach(metadata, Naming(prefix="x" * LONGEST_PREFIX))

    names = [
        str(each.name)
        for table in metadata.tables.values()
        for each in (table, *table.indexes, *table.constraints)
    ]
    assert max(map(len, names)) <= 63
    assert not [name for name in names if "webhook_" in name]


def test_no_text_in_the_package_names_a_table_past_us() -> None:
    package = Path(flask_webhooks.__file__).parent
    for path in package.rglob("*.py"):
        for match in re.finditer(r"sa\.text\(\s*((?:\s*f?\"+[^)]*)+)", path.read_text()):
            assert "webhook_" not in match[1], path
