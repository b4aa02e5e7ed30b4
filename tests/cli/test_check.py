"""`flask webhooks check` lists all mistakes at once, also if the app cannot start."""

from __future__ import annotations

import json
import shutil
import typing as t
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from flask import Flask
from flask.cli import ScriptInfo

from flask_webhooks import Webhooks
from flask_webhooks.cli import webhooks_cli
from flask_webhooks.state import state_of
from tests.folder import ROOT, Folder
from tests.host import CATALOG, db, make_host
from tests.receivers import Receiver, ok

BAD = ROOT / "tests" / "catalog" / "bad" / "eleven_mistakes.yaml"
APP = """\
from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from flask_webhooks import Webhooks


def create_app():
    app = Flask(__name__)
    app.config.update(SECRET_KEY="x", SQLALCHEMY_DATABASE_URI="sqlite:///app.sqlite")
    app.config.from_prefixed_env("TRY")
    db = SQLAlchemy(app)
    Webhooks(app, db)
    with app.app_context():
        db.create_all()
    return app
"""
Check = t.Callable[..., Result]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """An empty folder."""
    (tmp_path / "project").mkdir()
    return Folder(tmp_path / "project")


@pytest.fixture
def catalog(tmp_path: Path) -> Path:
    """A copy of the host's catalogue, to be changed."""
    path = tmp_path / "host.yaml"
    shutil.copy(CATALOG, path)
    return path


@pytest.fixture
def check(tmp_path: Path, catalog: Path) -> t.Iterator[Check]:
    """Runs the command on a new host app with a database of its own."""
    apps: list[Flask] = []

    def run(*words: str, **config: t.Any) -> Result:
        def create_app() -> Flask:
            settings = {"WEBHOOKS_CATALOG": str(catalog), **config}
            apps.append(make_host(f"sqlite:///{tmp_path / 'test.sqlite'}", tmp_path, **settings))
            return apps[-1]

        return CliRunner().invoke(
            webhooks_cli, ["check", *words], obj=ScriptInfo(create_app=create_app), prog_name="webhooks"
        )

    yield run
    for app in apps:
        if "webhooks" in app.extensions:
            state_of(app).transport.close()
        with app.app_context():
            db.engine.dispose()


def parts(result: Result) -> dict[str, t.Any]:
    """What `--json` says of each part."""
    return {part["name"]: part for part in json.loads(result.output)["checks"]}


class TestAll:
    def test_all_is_well(self, check: Check) -> None:
        result = check()

        assert result.exit_code == 0, result.output
        assert "FAIL" not in result.output
        assert "11 events in 5 channels" in result.output

    def test_as_json(self, check: Check) -> None:
        result = check("--json")

        assert json.loads(result.output)["ok"] is True
        assert list(parts(result)) == [
            "configuration",
            "catalogue",
            "extension",
            "lock",
            "database",
            "environments",
            "redis",
        ]

    def test_offline_leaves_the_outside_alone(self, check: Check) -> None:
        result = check("--json", "--offline", WEBHOOKS_REDIS_URL="redis://127.0.0.1:1")

        assert result.exit_code == 0
        assert not {"database", "redis"} & parts(result).keys()


class TestCatalogue:
    def test_eleven_mistakes_though_the_app_does_not_start(self, folder: Folder) -> None:
        folder.write("app.py", APP)
        expected = [
            line.removeprefix("#! ") for line in BAD.read_text().splitlines() if line.startswith("#!")
        ]
        where = {
            "TRY_WEBHOOKS_CATALOG": str(BAD),
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests' / 'catalog'}",
        }

        plain = folder.webhooks("check", **where)
        told = folder.webhooks("check", "--json", **where)

        assert (plain.code, told.code) == (1, 1)
        for mistake in expected:
            assert f"error: {BAD}:{mistake}\n" in plain.out
        catalogue = next(part for part in json.loads(told.out)["checks"] if part["name"] == "catalogue")
        found = [f"{each['line']}: {each['path']}: {each['message']}" for each in catalogue["findings"]]
        assert len(found) == 11
        assert found == expected

    def test_an_unregistered_format(self, check: Check, catalog: Path) -> None:
        text = catalog.read_text().replace("format: minimal", "format: minimall")
        catalog.write_text(text)
        line = next(at for at, each in enumerate(text.splitlines(), 1) if "minimall" in each)

        result = check("--json")

        assert result.exit_code == 1
        [finding] = parts(result)["catalogue"]["findings"]
        assert (finding["line"], finding["path"]) == (line, "channels.reports.events.failed.format")
        assert finding["message"] == 'no format "minimall" is registered. Did you mean "minimal"?'

    def test_a_model_without_owner_is_a_warning(self, check: Check, catalog: Path) -> None:
        head, _, rest = catalog.read_text().partition("  clients:")
        catalog.write_text(head + "  clients:" + rest.replace("    owner: owner\n", "", 1))

        result = check("--json")

        assert result.exit_code == 0
        [finding] = parts(result)["catalogue"]["findings"]
        assert (finding["level"], finding["path"]) == ("warning", "channels.clients")


class TestConfiguration:
    def test_every_wrong_key_is_reported(self, check: Check) -> None:
        result = check("--json", WEBHOOKS_TIMEOUT=15, WEBHOOKS_CONCURRENCY=0)

        assert result.exit_code == 1
        messages = [each["message"] for each in parts(result)["configuration"]["findings"]]
        assert [message.partition(" is ")[0] for message in messages] == [
            "WEBHOOKS_CONCURRENCY",
            "WEBHOOKS_TIMEOUT",
        ]
        # What else can be looked at is looked at.
        assert parts(result)["catalogue"]["ok"]

    def test_a_key_that_looks_like_a_slip_is_a_warning(self, check: Check) -> None:
        result = check("--json", "--offline", WEBHOOKS_ENABLE=True, WEBHOOKS_STRIPE_SECRET="whsec")

        [finding] = parts(result)["configuration"]["findings"]
        assert finding["level"] == "warning"
        assert "Did you mean WEBHOOKS_ENABLED?" in finding["message"]

    def test_what_else_stops_the_extension(self, check: Check) -> None:
        result = check("--json", SECRET_KEY=None)

        assert result.exit_code == 1
        [finding] = parts(result)["extension"]["findings"]
        assert "Set SECRET_KEY" in finding["message"]

    def test_an_app_that_does_not_use_it(self, tmp_path: Path, catalog: Path) -> None:
        app = Flask("other")
        app.config["WEBHOOKS_CATALOG"] = str(catalog)

        result = CliRunner().invoke(
            webhooks_cli, ["check", "--offline"], obj=ScriptInfo(create_app=lambda: app)
        )

        assert result.exit_code == 1
        assert "Call webhooks.init_app(app, db)" in result.output

    def test_forgiving_ends_with_the_command(self, check: Check, tmp_path: Path) -> None:
        check(WEBHOOKS_TIMEOUT=15)

        with pytest.raises(Exception, match="WEBHOOKS_TIMEOUT is 15"):
            make_host("sqlite://", tmp_path, Webhooks(), WEBHOOKS_TIMEOUT=15)


class TestLock:
    def test_none_yet_is_a_warning(self, check: Check) -> None:
        result = check("--json")

        [finding] = parts(result)["lock"]["findings"]
        assert (finding["level"], result.exit_code) == ("warning", 0)

    def test_written_then_kept(self, check: Check, catalog: Path) -> None:
        assert check("--update").exit_code == 0
        path = catalog.with_name("host.lock.json")
        written = path.read_bytes()
        assert json.loads(written)["events"]["invoices.created"]["fields"]["total"] == "decimal"

        result = check("--json")

        assert parts(result)["lock"] == {
            "name": "lock",
            "ok": True,
            "summary": "as host.lock.json says",
            "findings": [],
        }
        assert path.read_bytes() == written

    @pytest.mark.parametrize(
        ("old", "new", "expected"),
        [
            (
                "      paid: {on: updated, when: {status: {from: sent, to: paid}}, transition: PAY}\n",
                "",
                "BREAKING: invoices.paid: the event is gone",
            ),
            (
                "    model: tests.host:Client\n",
                "    model: tests.host:Client\n    schema: tests.host:LineSchema\n",
                "BREAKING: clients.created: name: the field is gone",
            ),
        ],
        ids=["event", "field"],
    )
    def test_what_breaks_receivers_fails(
        self, check: Check, catalog: Path, old: str, new: str, expected: str
    ) -> None:
        check("--update")
        text = catalog.read_text()
        assert old in text
        catalog.write_text(text.replace(old, new))

        result = check()

        assert result.exit_code == 1
        assert expected in result.output
        assert check("--update").exit_code == 0
        assert check().exit_code == 0

    def test_a_retyped_field_fails(self, check: Check, catalog: Path) -> None:
        check("--update")
        path = catalog.with_name("host.lock.json")
        path.write_text(path.read_text().replace('"total": "decimal"', '"total": "integer"'))

        result = check()

        assert result.exit_code == 1
        assert "invoices.created: total: the type was integer and is now decimal." in result.output

    def test_what_is_new_is_reported(self, check: Check, catalog: Path) -> None:
        check("--update")
        catalog.write_text(catalog.read_text().replace("events: [closed]", "events: [closed, opened]"))

        result = check()

        assert result.exit_code == 0
        assert "note: added: ledgers.opened: is new." in result.output

    def test_a_broken_lock_is_reported_and_can_be_written_again(self, check: Check, catalog: Path) -> None:
        path = catalog.with_name("host.lock.json")
        path.write_text("<<<<<<< HEAD\n")

        assert check().exit_code == 1
        assert check("--update").exit_code == 0
        assert json.loads(path.read_text())["lock"] == 1

    def test_the_example_apps_lock_is_up_to_date(self) -> None:
        """Update it with `flask --app example_app webhooks check --update`."""
        from example_app import create_app

        app = create_app({"SQLALCHEMY_DATABASE_URI": "sqlite://"})
        result = CliRunner().invoke(
            webhooks_cli, ["check", "--offline", "--json"], obj=ScriptInfo(create_app=lambda: app)
        )

        assert result.exit_code == 0, result.output
        assert parts(result)["lock"]["summary"] == "as accounting.lock.json says"


class TestOutside:
    def test_missing_tables_and_columns(self, check: Check, tmp_path: Path) -> None:
        import sqlite3

        check()
        with sqlite3.connect(tmp_path / "test.sqlite") as connection:
            connection.execute("ALTER TABLE webhook_workers RENAME TO elsewhere")
            connection.execute("ALTER TABLE webhook_owners DROP COLUMN changes")
        connection.close()
        app = Flask("bare")
        app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{tmp_path / 'test.sqlite'}"
        from flask_sqlalchemy import SQLAlchemy

        SQLAlchemy(app)
        result = CliRunner().invoke(webhooks_cli, ["check"], obj=ScriptInfo(create_app=lambda: app))

        assert result.exit_code == 1
        assert "Missing tables: webhook_workers. Run `flask db migrate`" in result.output
        assert "webhook_owners lacks columns: changes." in result.output
        # This app leaves its transactions to the driver; the host app does not.
        assert "Let SQLAlchemy emit BEGIN" in result.output
        assert "BEGIN" not in check().output
        with app.app_context():
            app.extensions["sqlalchemy"].engine.dispose()

    def test_a_database_that_is_not_there(self, tmp_path: Path) -> None:
        from flask_sqlalchemy import SQLAlchemy

        app = Flask("away")
        app.config["SQLALCHEMY_DATABASE_URI"] = "postgresql+psycopg://me:hush@127.0.0.1:1/x"
        SQLAlchemy(app)

        result = CliRunner().invoke(webhooks_cli, ["check"], obj=ScriptInfo(create_app=lambda: app))

        assert result.exit_code == 1
        assert "postgresql+psycopg://127.0.0.1:1/x cannot be reached" in result.output
        assert "hush" not in result.output

    def test_a_redis_that_is_not_there(self, check: Check) -> None:
        result = check("--json", WEBHOOKS_REDIS_URL="redis://:hush@127.0.0.1:1/0")

        assert result.exit_code == 1
        [finding] = parts(result)["redis"]["findings"]
        assert "cannot be reached" in finding["message"]
        assert "hush" not in result.output

    def test_a_redis_that_is_there(self, check: Check, valkey: str) -> None:
        result = check("--json", WEBHOOKS_REDIS_URL=valkey)

        assert parts(result)["redis"]["summary"] == "0 jobs waiting"
        assert result.exit_code == 0

    def test_something_else_than_redis(self, check: Check) -> None:
        with Receiver(ok()) as web:
            result = check(WEBHOOKS_REDIS_URL=f"redis://127.0.0.1:{web.port}/0")

        assert result.exit_code == 1


def test_an_invalid_sample_is_reported(check: Check, catalog: Path) -> None:
    text = catalog.read_text()
    catalog.write_text(
        text.replace("      sent: {on: updated,", "      sent: {sample: {id: x}, on: updated,").replace(
            "      paid: {on: updated,", "      paid: {sample: {id: 1, wrong: 1}, on: updated,"
        )
    )

    result = check("--offline")

    assert result.exit_code == 0, result.output
    assert 'it is "x"' not in result.output
    assert (
        'channels.invoices.events.sent.sample: it.id is "x", and not integer, which data never contains'
        in result.output
    )
    assert "channels.invoices.events.paid.sample: it has wrong, which data never contains" in result.output
