"""The steps of the README, applied to an app that has nothing yet."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.folder import ROOT, Folder

MODELS = """\
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class Base(DeclarativeBase):
    pass


db = SQLAlchemy(model_class=Base)


class Invoice(db.Model):
    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int]
    number: Mapped[str]
"""
SCHEMAS = """\
from marshmallow import Schema, fields


class InvoiceSchema(Schema):
    id = fields.Integer()
    number = fields.String()
"""
BEFORE = """\
import json

from flask import Flask

from .models import Invoice, db

app = Flask(__name__)
app.config.update(SECRET_KEY="x", SQLALCHEMY_DATABASE_URI="sqlite:///app.sqlite")
db.init_app(app)
"""
SIGNED_IN = """\
from types import SimpleNamespace

current_user = SimpleNamespace(is_authenticated=True, account_id=42)
"""
AFTER = """

@app.cli.command("go")
def go():
    db.create_all()
    client = app.test_client()
    made = client.post("/webhooks/api/subscriptions", json=json.loads(SUBSCRIPTION))
    db.session.add(Invoice(account_id=42, number="A"))
    db.session.add(Invoice(account_id=43, number="of somebody else"))
    db.session.commit()
    print(json.dumps([made.status_code, client.get("/webhooks/api/messages").json]))
"""


def test_what_it_says_is_all_that_is_needed(tmp_path: Path) -> None:
    blocks = re.findall(r"```(\w+)\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    said = dict(reversed(blocks))
    (tmp_path / "project" / "myapp").mkdir(parents=True)
    folder = Folder(tmp_path / "project")
    folder.write("flask_login.py", SIGNED_IN)
    folder.write("myapp/models.py", MODELS)
    folder.write("myapp/schemas.py", SCHEMAS)
    subscription = f"\n\nSUBSCRIPTION = {said['json']!r}\n"
    folder.write("myapp/__init__.py", BEFORE + said["python"] + subscription + AFTER)
    folder.write("myapp/webhooks.yaml", said["yaml"])

    done = folder.flask("go", app="myapp")

    assert done.code == 0, done.err
    status, messages = json.loads(done.out)
    assert status == 201
    [message] = messages["items"]
    assert message["event"] == "invoices.created"
