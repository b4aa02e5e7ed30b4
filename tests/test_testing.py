"""The examples of docs/testing.md, run as tests of a host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parent.parent
APP = """\
from flask import Flask, request
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from flask_webhooks import Principal, Webhooks


class Base(DeclarativeBase):
    pass


db = SQLAlchemy(model_class=Base)
webhooks = Webhooks()


class Invoice(db.Model):
    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int]
    number: Mapped[str]


@webhooks.principal_loader
def load_principal():
    return Principal(owner="42", rights={"read"})


def create_app(**config):
    app = Flask(__name__)
    app.config.update(SECRET_KEY="x", WEBHOOKS_ALLOW_HTTP=True, WEBHOOKS_ALLOWED_NETWORKS=["127.0.0.0/8"])
    app.config.update(config)
    db.init_app(app)
    webhooks.init_app(app, db)

    @app.post("/invoices")
    def create_invoice():
        db.session.add(Invoice(account_id=42, number=request.json.get("number")))
        db.session.flush()
        db.session.commit()
        return "", 204

    @app.errorhandler(500)
    def failed(_):
        db.session.rollback()
        return "", 400

    app.testing = False  # so that what is refused is answered
    return app
"""
CATALOGUE = """\
version: 1
channels:
  invoices: {model: "myapp:Invoice", owner: account_id, fields: [id, number], events: [created, updated]}
"""


def test_every_example_passes(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "testing.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    [conftest] = [block for block in blocks if block.startswith("# conftest.py")]
    (tmp_path / "myapp").mkdir()
    (tmp_path / "myapp" / "__init__.py").write_text(APP)
    (tmp_path / "myapp" / "webhooks.yaml").write_text(CATALOGUE)
    (tmp_path / "conftest.py").write_text(conftest)
    for number, block in enumerate(blocks):
        if block is not conftest:
            (tmp_path / f"test_{number}.py").write_text(block)

    words = ["-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-p", "no:randomly", str(tmp_path)]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    env["PYTHONPATH"] = f"{ROOT}{os.pathsep}{tmp_path}"
    done = subprocess.run(
        [sys.executable, *words, "--rootdir", str(tmp_path), "-c", os.devnull],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{sum(block.count('def test_') for block in blocks)} passed" in done.stdout
