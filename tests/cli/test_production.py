"""`flask webhooks check --production` lists what has to be done before going live."""

from __future__ import annotations

import json
import typing as t
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from flask import Flask
from flask.cli import ScriptInfo

from flask_webhooks import Webhooks
from flask_webhooks.cli import webhooks_cli
from flask_webhooks.models import Worker
from flask_webhooks.state import DEVELOPING, state_of
from tests.conftest import release
from tests.host import load_principal, make_host

LIVE: dict[str, t.Any] = {
    "SECRET_KEY": "0123456789abcdef0123456789abcdef",
    "SESSION_COOKIE_SECURE": True,
    "WEBHOOKS_ENVIRONMENT": "production",
    "WEBHOOKS_ALLOW_HTTP": False,
    "WEBHOOKS_ALLOWED_NETWORKS": [],
    "WEBHOOKS_ENCRYPTION_KEYS": ["oQkzvB6m0yHqX5dXlPyE8bJw9K3Q1cM4s7T2u6V0n8I="],
    "WEBHOOKS_ON_ERROR": "record",
}


@pytest.fixture
def production(tmp_path: Path) -> t.Callable[..., t.Any]:
    """Runs the check; returns what it says of this part."""

    def run(
        change: t.Callable[[Flask], t.Any] | None = None, *, loader: t.Any = load_principal, **config: t.Any
    ) -> t.Any:
        hooks = Webhooks()
        if loader is not None:
            hooks.principal_loader(loader)
        app = make_host(f"sqlite:///{tmp_path / 'test.sqlite'}", tmp_path, hooks, **{**LIVE, **config})
        if change is not None:
            change(app)
        words = ["check", "--production", "--json"]
        result = CliRunner().invoke(
            webhooks_cli, words, obj=ScriptInfo(create_app=lambda: app), prog_name="webhooks"
        )
        release(app)
        [found] = [part for part in json.loads(result.output)["checks"] if part["name"] == "production"]
        assert result.exit_code == (0 if found["ok"] else 1)
        return found

    return run


def levels(found: t.Any) -> dict[str, str]:
    return {finding["message"]: finding["level"] for finding in found["findings"]}


def test_an_app_that_may_go_live(production: t.Callable[..., t.Any]) -> None:
    found = production()

    assert found["ok"]
    assert found["summary"] == "ready to go live"
    told = " ".join(levels(found))
    assert "SQLite" in told
    assert "No worker runs" in told
    assert set(levels(found).values()) == {"warning"}


@pytest.mark.parametrize(("config", "text", "level"), [
    ({"WEBHOOKS_ENVIRONMENT": "staging"}, 'WEBHOOKS_ENVIRONMENT is "staging"', "error"),
    ({"WEBHOOKS_SEND_ENVIRONMENTS": "staging"}, "Workers send for staging only", "error"),
    ({"WEBHOOKS_ENABLED": False}, "WEBHOOKS_ENABLED", "error"),
    ({"WEBHOOKS_ALLOW_HTTP": True}, "WEBHOOKS_ALLOW_HTTP", "error"),
    ({"WEBHOOKS_ALLOWED_NETWORKS": ["127.0.0.0/8"]}, "127.0.0.0/8", "error"),
    ({"WEBHOOKS_ALLOWED_NETWORKS": ["::1/128"]}, "::1/128", "error"),
    ({"WEBHOOKS_ALLOWED_NETWORKS": ["0.0.0.0/0"]}, "0.0.0.0/0", "error"),
    ({"WEBHOOKS_ALLOWED_NETWORKS": ["10.0.0.0/8"]}, "10.0.0.0/8", "warning"),
    ({"SECRET_KEY": "dev"}, "SECRET_KEY has 3 characters", "error"),
    ({"TESTING": True}, "TESTING", "error"),
    ({"loader": None}, "principal_loader", "error"),
    ({"SESSION_COOKIE_SECURE": False}, "SESSION_COOKIE_SECURE", "warning"),
    ({"WEBHOOKS_ENCRYPTION_KEYS": []}, "WEBHOOKS_ENCRYPTION_KEYS", "warning"),
    ({"WEBHOOKS_ON_ERROR": "raise"}, "WEBHOOKS_ON_ERROR", "warning"),
])  # fmt: skip
def test_what_is_in_the_way(
    production: t.Callable[..., t.Any], config: dict[str, t.Any], text: str, level: str
) -> None:
    before, found = production(), production(**config)

    [new] = [(message, how) for message, how in levels(found).items() if message not in levels(before)]
    assert text in new[0]
    assert new[1] == level
    assert found["ok"] is (level == "warning")


@pytest.mark.parametrize("name", ["FLASK_DEBUG", DEVELOPING])
def test_debugging_is_in_the_way(
    production: t.Callable[..., t.Any], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "1")

    found = production()

    assert [text for text, level in levels(found).items() if level == "error" and "debug mode" in text]


def test_a_worker_that_is_alive_is_seen(production: t.Callable[..., t.Any]) -> None:
    def work(app: Flask) -> None:
        with state_of(app).engine.begin() as connection:
            values = {"name": "here", "seen_at": datetime.now(UTC), "started_at": datetime.now(UTC)}
            connection.execute(sa.insert(Worker).values(values))

    assert "No worker runs" not in " ".join(levels(production(work)))


def test_without_it_nothing_is_said_of_that(tmp_path: Path) -> None:
    app = make_host(f"sqlite:///{tmp_path / 'test.sqlite'}", tmp_path)
    result = CliRunner().invoke(webhooks_cli, ["check"], obj=ScriptInfo(create_app=lambda: app))
    release(app)

    assert "production" not in result.output
