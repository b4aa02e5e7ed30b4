"""A database that is unreachable or not migrated: every command prints one sentence with the remedy."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result
from flask import Flask
from flask.cli import ScriptInfo

from flask_webhooks import Webhooks
from flask_webhooks.cli import webhooks_cli
from flask_webhooks.state import state_of
from tests.host import db

CATALOG = "version: 1\nchannels: {invoices: {model: 'tests.host:Invoice', owner: owner, events: [created]}}\n"
ID = "0197f0a0-0000-7000-8000-000000000000"
NEEDS = {
    "backfill": ["invoices", "--subscription", ID],
    "replay": [ID],
    "send-test": [ID],
    "subscribe": ["--owner", "1", "--url", "https://example.com/", "--event", "*"],
}
WITHOUT = {"init", "check", "catalog"}
"""They need no database, or tell of it in their own way."""
WAITS = {"worker", "deliver", "dev"}
"""They wait for a database that is away."""
COMMANDS = sorted(webhooks_cli.commands.keys() - WITHOUT)


@contextlib.contextmanager
def app_on(url: str, folder: Path):
    """An app whose database has no tables."""
    (folder / "webhooks.yaml").write_text(CATALOG)
    app = Flask("lonely", instance_path=str(folder / "instance"))
    app.config.update(
        SECRET_KEY="x",
        SQLALCHEMY_DATABASE_URI=url,
        WEBHOOKS_CATALOG=str(folder / "webhooks.yaml"),
        WEBHOOKS_REDIS_URL="redis://127.0.0.1:1/0",
    )
    db.init_app(app)
    Webhooks(app, db)
    yield app
    state_of(app).transport.close()
    with app.app_context():
        db.engine.dispose()


def call(app: Flask, name: str) -> Result:
    words = [name, *NEEDS.get(name, [])]
    return CliRunner().invoke(webhooks_cli, words, obj=ScriptInfo(create_app=lambda: app))


def is_one_sentence(result: Result) -> None:
    assert (result.exit_code, type(result.exception)) == (1, SystemExit), result.output
    assert result.output.splitlines()[-1].startswith("Error: The database ")  # a line, and the last


@pytest.mark.parametrize("name", COMMANDS)
def test_a_database_that_is_not_migrated_is_reported_with_the_remedy(name: str, tmp_path: Path) -> None:
    with app_on(f"sqlite:///{tmp_path / 'empty.sqlite'}", tmp_path) as app:
        result = call(app, name)

    is_one_sentence(result)
    assert "Missing tables: webhook_" in result.output
    assert "flask db upgrade" in result.output


@pytest.mark.parametrize("name", ["worker", "status"])
def test_so_is_one_that_lacks_a_column(name: str, tmp_path: Path) -> None:
    with app_on(f"sqlite:///{tmp_path / 'old.sqlite'}", tmp_path) as app, app.app_context():
        db.create_all()
        with db.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE webhook_workers DROP COLUMN seen_at")
        result = call(app, name)

    is_one_sentence(result)
    assert "webhook_workers lacks columns: seen_at" in result.output


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - WAITS))
@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_a_missing_database_is_reported_without_its_password(name: str, kind: str, tmp_path: Path) -> None:
    urls = {
        "sqlite": f"sqlite:///{tmp_path}/nowhere/x.sqlite",
        "postgresql": "postgresql+psycopg://S3cret@127.0.0.1:1/x",
    }
    with app_on(urls[kind], tmp_path) as app:
        result = call(app, name)

    is_one_sentence(result)
    assert "cannot be reached" in result.output
    assert "S3cret" not in result.output


def test_a_mistake_of_ours_keeps_its_traceback(tmp_path: Path) -> None:
    with app_on(f"sqlite:///{tmp_path / 'made.sqlite'}", tmp_path) as app, app.app_context():
        db.create_all()

        @sa.event.listens_for(db.engine, "before_cursor_execute")
        def break_off(connection, cursor, statement: str, *_: object) -> None:
            if "FROM webhook_workers" in statement:
                raise sa.exc.InvalidRequestError("ours")

        result = call(app, "status")

    assert isinstance(result.exception, sa.exc.InvalidRequestError)
