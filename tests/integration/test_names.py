"""An app that already uses our names: blueprints, keys, commands, extensions; and one that routes by host."""

from __future__ import annotations

import asyncio
import re
import sys
import typing as t
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from flask import Blueprint, Flask
from flask.cli import FlaskGroup
from flask_sqlalchemy import SQLAlchemy

from flask_webhooks import ConfigurationError, Principal, Webhooks
from flask_webhooks.state import state_of
from tests.host import load_principal, make_host
from tests.stage import subscribe

OWNER = {"X-Owner": "1"}


class Named(Flask):
    """A host with a blueprint, a table of extensions and a key that are called like ours."""

    def __init__(self, *given: t.Any, **more: t.Any) -> None:
        super().__init__(*given, **more)
        incoming = Blueprint("webhooks", __name__)
        incoming.add_url_rule("/webhooks/stripe", "stripe", lambda: "theirs", methods=["POST"])

        @incoming.cli.command("sync")
        def sync() -> None:
            click.echo("synchronised")

        self.register_blueprint(incoming)
        self.extensions["webhooks"] = object()
        self.config["WEBHOOKS_STRIPE_SECRET"] = "whsec"


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> t.Callable[..., Flask]:
    """Make a host of another class of app."""

    def made(kind: t.Callable[..., Flask], webhooks: Webhooks | None = None, **config: t.Any) -> Flask:
        monkeypatch.setattr("tests.host.Flask", kind)
        return make_host(f"sqlite:///{tmp_path / 'names.sqlite'}", tmp_path, webhooks, **config)

    return made


class TestBlueprints:
    def test_one_of_the_same_name_is_refused_with_the_remedy(self, make: t.Callable[..., Flask]) -> None:
        with pytest.raises(ConfigurationError, match=r"has a blueprint 'webhooks'.*Webhooks\(name="):
            make(Named)

    def test_ours_may_be_called_otherwise(self, make: t.Callable[..., Flask]) -> None:
        webhooks = Webhooks(name="hooks")
        webhooks.principal_loader(load_principal)
        app = make(Named, webhooks)
        client = app.test_client()
        with app.app_context():
            subscription = subscribe(state_of(app), "http://127.0.0.1:9/", "invoices.*")

        assert client.post("/webhooks/stripe").text == "theirs"
        assert client.get("/webhooks/api/subscriptions", headers=OWNER).status_code == 200
        assert client.patch("/webhooks/api/subscriptions", headers=OWNER).status_code == 405
        assert client.get("/webhooks/").location == "/webhooks/console/"
        assert {"hooks", "hooks_console", "webhooks"} == app.blueprints.keys()
        for path in ("", "events", "events/invoices.created", f"webhooks/{subscription.id}", "deliveries"):
            page = client.get(f"/webhooks/console/{path}", headers=OWNER)
            assert page.status_code == 200, path
            assert "/webhooks/console/static/" in page.text

    @pytest.mark.parametrize("name", ["", "a.b"])
    def test_a_name_that_no_blueprint_can_have_is_refused(self, name: str) -> None:
        with pytest.raises(ConfigurationError, match="Take one without dots"):
            Webhooks(name=name)


def test_commands_of_the_hosts_blueprint_stay(make: t.Callable[..., Flask]) -> None:
    app = make(Named, Webhooks(name="hooks"))
    group = FlaskGroup(create_app=lambda: app)

    assert CliRunner().invoke(group, ["webhooks", "sync"]).output == "synchronised\n"
    listed = CliRunner().invoke(group, ["webhooks", "--help"]).output
    assert re.search(r"^  status .*^  sync", listed, re.M | re.S)
    assert "No such command 'snyc'" in CliRunner().invoke(group, ["webhooks", "snyc"]).output
    assert CliRunner().invoke(group, ["webhooks", "status", "--help"]).exit_code == 0


class TestHosts:
    """Apps that choose their pages by the host that is asked for."""

    @staticmethod
    def by_host(*given: t.Any, **more: t.Any) -> Flask:
        return Flask(*given, host_matching=True, static_host="static.example.com", **more)

    def test_a_host_is_needed(self, make: t.Callable[..., Flask]) -> None:
        with pytest.raises(ConfigurationError, match="set WEBHOOKS_URL_HOST"):
            make(self.by_host)

    def test_everything_is_there(self, make: t.Callable[..., Flask]) -> None:
        client = make(self.by_host, WEBHOOKS_URL_HOST="app.example.com").test_client()
        ours = "https://app.example.com"

        page = client.get("/webhooks/console/", base_url=ours, headers=OWNER)
        assert page.status_code == 200
        way = client.get("/webhooks/", base_url=ours)
        assert way.location.endswith("/webhooks/console/")
        [script] = re.findall(r'src="(/webhooks/console/static/[^"]+)"', page.text)[:1]
        with client.get(script, base_url=ours) as asset:
            assert asset.status_code == 200
        assert client.get("/webhooks/api/subscriptions", base_url=ours, headers=OWNER).status_code == 200
        assert client.get("/webhooks/api/nothing", base_url=ours, headers=OWNER).is_json
        assert client.get("/webhooks/console/", base_url="https://other.example.com").status_code == 404

    def test_a_host_that_routing_would_ignore_is_refused(self, make: t.Callable[..., Flask]) -> None:
        with pytest.raises(ConfigurationError, match="does not look at the host"):
            make(Flask, WEBHOOKS_URL_HOST="app.example.com")


def test_every_rule_says_its_methods(app: Flask) -> None:
    """Flask-DebugToolbar sorts them, flasgger takes some away."""
    for rule in app.url_map.iter_rules():
        assert sorted(rule.methods or ()), rule
        assert (rule.methods or set()).difference({"HEAD", "OPTIONS"}), rule


@pytest.mark.parametrize("method", ["PROPFIND", "XYZ", "TRACE"])
def test_methods_of_any_name_get_an_answer_of_ours(app: Flask, method: str) -> None:
    answer = app.test_client().open("/webhooks/api/subscriptions", method=method, headers=OWNER)

    assert (answer.status_code, answer.mimetype) == (405, "application/problem+json")
    assert "GET" in answer.headers["Allow"]


def test_another_extension_for_the_database_is_refused(tmp_path: Path) -> None:
    """Flask-SQLAlchemy-Lite is at the same place."""
    app = Flask("lite")
    app.extensions["sqlalchemy"] = object()

    with pytest.raises(ConfigurationError, match=r"Flask-SQLAlchemy-Lite is not supported"):
        Webhooks().init_app(app, t.cast("t.Any", object()))


def test_an_app_named_like_a_standard_package_gets_the_place_that_was_searched() -> None:
    import test

    app = Flask("test")
    app.config.update(SECRET_KEY="x", SQLALCHEMY_DATABASE_URI="sqlite://")
    SQLAlchemy(app)
    db = app.extensions["sqlalchemy"]

    with pytest.raises(ConfigurationError) as caught:
        Webhooks(app, db)
    looked = Path(test.__file__).parent / "webhooks.yaml"
    assert f"Looked at {looked}. Paths start at app.root_path" in str(caught.value)
    assert "absolute path" in str(caught.value)
    with app.app_context():
        db.engine.dispose()


class TestAsync:
    def test_a_loader_may_be_async(self, make_app: t.Callable[..., Flask]) -> None:
        webhooks = Webhooks()
        app = make_app(webhooks=webhooks)

        @webhooks.principal_loader
        async def load() -> Principal | None:
            await asyncio.sleep(0)
            return load_principal()

        def status(path: str, **headers: str) -> int:
            return app.test_client().get(f"/webhooks/{path}", headers=headers).status_code

        # In a thread of its own: tests in a browser leave an event loop behind in this one.
        with ThreadPoolExecutor(1) as threads:
            for path in ("api/subscriptions", "console/"):
                assert threads.submit(status, path, **OWNER).result() == 200
                assert threads.submit(status, path).result() == 401

    def test_it_is_refused_at_start_where_flask_cannot_call_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "asgiref", None)

        async def load() -> Principal | None:
            return None

        with pytest.raises(ConfigurationError, match=r'pip install "flask\[async\]"'):
            Webhooks().principal_loader(load)

    def test_what_is_called_elsewhere_may_not(self, make_app: t.Callable[..., Flask]) -> None:
        async def other(*_: t.Any) -> str:
            return "staging"

        with pytest.raises(ConfigurationError, match="make it a plain function"):
            make_app(WEBHOOKS_ENVIRONMENT=other)
        with pytest.raises(ConfigurationError, match="format 'acme' is async"):
            Webhooks().payload_format("acme")(t.cast("t.Any", other))
