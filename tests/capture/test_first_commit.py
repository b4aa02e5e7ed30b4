"""The first commit of a process on SQLite, while another process writes."""

from __future__ import annotations

import sqlite3
import typing as t
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask

from flask_webhooks import Webhooks
from flask_webhooks.state import state_of
from tests.conftest import release
from tests.host import db, make_host
from tests.stage import recorded, subscribe

webhooks = Webhooks()


@pytest.fixture
def app(tmp_path: Path) -> t.Iterator[Flask]:
    app = make_host(f"sqlite:///{tmp_path / 'new.sqlite'}", tmp_path)
    with app.app_context():
        yield app
    release(app)


def test_nothing_is_read_in_the_hosts_transaction_before_it_writes(app: Flask, tmp_path: Path) -> None:
    """A transaction that has read cannot write after another one has: SQLITE_BUSY_SNAPSHOT, without waiting."""
    state = state_of(app)
    subscribe(state, "https://example.com/hooks", "reports.ready")
    other = sqlite3.connect(tmp_path / "new.sqlite", isolation_level=None)

    @sa.event.listens_for(db.engine, "before_cursor_execute")
    def write_elsewhere(connection: t.Any, cursor: t.Any, statement: str, *_: t.Any) -> None:
        if statement.startswith("INSERT INTO webhook_messages"):
            other.execute("UPDATE webhook_subscriptions SET description = 'changed meanwhile'")

    webhooks.emit("reports.ready", {"id": 1}, owner="1")
    db.session.commit()
    other.close()

    assert [message.event for message in recorded(state)] == ["reports.ready"]
