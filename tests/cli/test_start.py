"""If an app cannot start, every command prints the reason without a traceback."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner
from flask import Flask
from flask.cli import ScriptInfo

from flask_webhooks.cli import webhooks_cli
from tests.folder import Folder
from tests.host import make_host

pytestmark = pytest.mark.long

NEEDS = {
    "backfill": ["invoices", "--subscription", "x"],
    "replay": ["x"],
    "send-test": ["x"],
    "subscribe": ["--owner", "1", "--url", "https://example.com/", "--event", "*"],
}
GOES_ON = {"init", "check"}
"""They run nevertheless: the one writes what is missing, the other tells everything."""


@pytest.mark.parametrize("name", sorted(webhooks_cli.commands.keys() - GOES_ON))
def test_a_broken_catalogue_is_reported_without_a_traceback(name: str, tmp_path: Path) -> None:
    (tmp_path / "webhooks.yaml").write_text("version: 1\nchanels: {}\n", encoding="utf-8")

    def create_app() -> Flask:
        return make_host("sqlite://", tmp_path, WEBHOOKS_CATALOG=str(tmp_path / "webhooks.yaml"))

    words = [name, *NEEDS.get(name, [])]
    result = CliRunner().invoke(webhooks_cli, words, obj=ScriptInfo(create_app=create_app))

    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit)
    told = f'{tmp_path}/webhooks.yaml:2: (document): unknown key "chanels". Did you mean "channels"?'
    assert told in result.output


MODULE = """
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
app = Flask(__name__)
app.config["SQLALCHEMY_DATABASE_URI"] = "postgresql://somebody@localhost/nothing"
SQLAlchemy(app)
"""
FACTORY = "def create_app():\n" + MODULE.replace("\n", "\n    ") + "return app\n"
GONE = "raise ModuleNotFoundError(\"No module named 'psycopg'\", name='psycopg')\n"


@pytest.mark.parametrize(
    ("app", "command"), [(MODULE, "worker"), (FACTORY, "check")], ids=["module", "factory"]
)
def test_an_app_with_psycopg2_alone_gets_the_remedy(tmp_path: Path, app: str, command: str) -> None:
    folder = Folder(tmp_path)
    for name, text in (("app.py", app), ("psycopg.py", GONE), ("psycopg2.py", "")):
        folder.write(name, text)

    result = folder.webhooks(command, is_cold=True)

    assert (result.code, result.out) == (1, "")
    assert result.err.startswith("Error: SQLAlchemy 2.")
    assert "Write postgresql+psycopg2:// in SQLALCHEMY_DATABASE_URI" in result.err
    assert result.err.count("\n") == 1

    folder.path.joinpath("psycopg2.py").unlink()
    assert "postgresql+psycopg2://" not in folder.webhooks(command, is_cold=True).err  # it was never there


def test_a_missing_one_as_a_newcomer_sees_it(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    app = """
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from flask_webhooks import Webhooks
app = Flask(__name__)
app.config.update(SECRET_KEY="x", SQLALCHEMY_DATABASE_URI="sqlite://")
Webhooks(app, SQLAlchemy(app))
"""
    folder.write("app.py", app)

    result = folder.webhooks("worker")

    assert (result.code, result.out) == (1, "")
    first, second, *rest = result.err.splitlines()
    assert first == "Error: The webhook catalogue has 1 mistake:"
    assert second.startswith("  webhooks.yaml:1: (document): cannot be read: No such file or directory.")
    assert "Run `flask webhooks init`" in second
    assert rest == []
