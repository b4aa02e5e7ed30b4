"""The tables in the host's metadata: `create_all`, and migrations that Flask-Migrate generates."""

from __future__ import annotations

import typing as t
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import flask_migrate
import pytest
import sqlalchemy as sa
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Session

from flask_webhooks import Webhooks
from flask_webhooks.models import Base, Message, attach
from flask_webhooks.state import AppState
from tests.host import db

TABLES = {table.name for table in Base.metadata.sorted_tables}


def test_create_all_makes_the_tables(state: AppState) -> None:
    inspector = sa.inspect(state.engine)

    assert TABLES <= set(inspector.get_table_names())
    for table in Base.metadata.sorted_tables:
        made = {index["name"] for index in inspector.get_indexes(table.name)}
        assert {index.name for index in table.indexes} <= made


def test_attaching_twice_changes_nothing(app: Flask) -> None:
    before = dict(db.metadata.tables)

    attach(db.metadata)

    assert dict(db.metadata.tables) == before


@pytest.mark.filterwarnings("ignore:'get_engine' is deprecated:DeprecationWarning")  # Flask-Migrate's env.py
def test_flask_migrate_finds_the_tables(empty_database_url: str, tmp_path: Path) -> None:
    app, own = _migrating_app(empty_database_url, tmp_path)
    folder = str(tmp_path / "migrations")
    with app.app_context():
        flask_migrate.init(folder)
        flask_migrate.migrate(folder, message="webhooks")
        [script] = (tmp_path / "migrations" / "versions").glob("*.py")
        text = script.read_text()
        flask_migrate.upgrade(folder)

        assert TABLES <= set(sa.inspect(own.engine).get_table_names())
        assert "flask_webhooks" not in text  # else every migration would need an import by hand
        assert all(f"'{table}'" in text for table in TABLES)
        own.session.remove()
        own.engine.dispose()


@pytest.mark.filterwarnings("ignore:'get_engine' is deprecated:DeprecationWarning")  # Flask-Migrate's env.py
def test_a_migrated_database_has_nothing_left_to_migrate(empty_database_url: str, tmp_path: Path) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    app, own = _migrating_app(empty_database_url, tmp_path)
    folder = str(tmp_path / "migrations")
    with app.app_context():
        flask_migrate.init(folder)
        flask_migrate.migrate(folder)
        flask_migrate.upgrade(folder)
        with own.engine.connect() as connection:
            differences = compare_metadata(MigrationContext.configure(connection), own.metadata)

        assert differences == []
        own.session.remove()
        own.engine.dispose()


def test_instants_are_kept_to_the_microsecond_in_utc(state: AppState) -> None:
    moment = datetime(2026, 3, 1, 23, 30, 0, 123456, tzinfo=timezone(timedelta(hours=5)))
    with Session(state.engine) as session:
        session.add(_message(moment))
        session.commit()
        read = session.scalars(sa.select(Message)).one().occurred_at

    assert read == moment
    assert read.tzinfo is UTC


def _message(moment: datetime) -> Message:
    columns: dict[str, t.Any] = {"event": "reports.ready", "channel": "reports", "owner": "1"}
    return Message(
        **columns,
        environment="staging",
        occurred_at=moment,
        sequence=1,
        text="Report ready.",
        data="{}",
        size=2,
    )


def _migrating_app(empty_database_url: str, tmp_path: Path) -> tuple[Flask, SQLAlchemy]:
    class OwnBase(DeclarativeBase):
        pass

    own = SQLAlchemy(model_class=OwnBase)
    (tmp_path / "webhooks.yaml").write_text(
        "version: 1\ntitle: T\nchannels:\n  reports: {title: Reports, events: [ready]}\n"
    )
    app = Flask("migrating", root_path=str(tmp_path), instance_path=str(tmp_path / "instance"))
    app.config.update(SECRET_KEY="x", SQLALCHEMY_DATABASE_URI=empty_database_url)
    own.init_app(app)
    Webhooks(app, own)
    flask_migrate.Migrate(app, own)
    return app, own


def test_every_key_fits_into_what_mysql_lets_one_have() -> None:
    """3,072 bytes, at 4 a character."""

    def width(column: sa.Column[t.Any]) -> int:
        if isinstance(column.type, sa.Uuid):
            return 32 * 4
        length = getattr(column.type, "length", None)
        return length * 4 if length else 8

    for table in Base.metadata.sorted_tables:
        uniques = [each for each in table.constraints if isinstance(each, sa.UniqueConstraint)]
        for key in (table.primary_key, *table.indexes, *uniques):
            assert sum(width(column) for column in key.columns) <= 3072, (table.name, key.name)
