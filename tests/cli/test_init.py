"""`flask webhooks init`: from an empty folder to a catalogue that loads as it is written."""

from __future__ import annotations

import re
import sys
import typing as t
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from example_app.models import db as accounting
from flask_webhooks import starter
from flask_webhooks.bindings import open_catalog
from flask_webhooks.catalog import Catalog
from tests.folder import Folder
from tests.host import db as host

APP = """\
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from flask_webhooks import Webhooks


class Base(DeclarativeBase):
    pass


db = SQLAlchemy(model_class=Base)
webhooks = Webhooks()


class Account(db.Model):
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Invoice(db.Model):
    id: Mapped[int] = mapped_column(primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("account.id"))
    account: Mapped[Account] = relationship()


def create_app():
    app = Flask(__name__)
    app.config.update(SECRET_KEY="x", SQLALCHEMY_DATABASE_URI="sqlite:///app.sqlite")
    app.config.from_prefixed_env("TRY")
    db.init_app(app)
    webhooks.init_app(app, db)
    with app.app_context():
        db.create_all()
    return app
"""


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    """An empty folder."""
    (tmp_path / "project").mkdir()
    return Folder(tmp_path / "project")


def opened(folder: Path, text: str) -> Catalog:
    (folder / "webhooks.yaml").write_text(text)
    return open_catalog("webhooks.yaml", root=folder)[0]


class TestNewcomer:
    def test_the_error_names_the_way_out(self, folder: Folder) -> None:
        folder.write("app.py", APP)

        found = folder.flask("routes", is_cold=True)  # just what a newcomer meets

        assert found.code != 0
        assert "Run `flask webhooks init` to write one from your models" in found.err

    def test_from_nothing_to_a_catalogue(self, folder: Folder) -> None:
        folder.write("app.py", APP)

        made = folder.webhooks("init")

        assert (made.code, made.err) == (0, "")
        assert made.out.splitlines()[0].endswith("webhooks.yaml: 2 channels.")
        shown = folder.webhooks("catalog")
        assert shown.code == 0, shown.err
        assert shown.out.splitlines()[-1] == "6 events in 2 channels."
        assert "invoices.created" in shown.out

    def test_nothing_is_overwritten_without_force(self, folder: Folder) -> None:
        folder.write("app.py", APP)
        path = folder.write("webhooks.yaml", "mine")

        found = folder.webhooks("init")

        assert found.code == 1
        assert "--force" in found.err
        assert path.read_text() == "mine"
        assert folder.webhooks("init", "--force").code == 0
        assert "app:Invoice" in path.read_text()

    def test_it_goes_where_the_configuration_says(self, folder: Folder) -> None:
        folder.write("app.py", APP)

        assert folder.webhooks("init", TRY_WEBHOOKS_CATALOG="catalog/events.yaml").code == 0

        assert (folder.path / "catalog" / "events.yaml").exists()

    def test_a_package_resource_is_nowhere_to_write(self, folder: Folder) -> None:
        folder.write("app.py", APP)

        found = folder.webhooks("init", TRY_WEBHOOKS_CATALOG="shop:webhooks.yaml")

        assert found.code == 1
        assert "--output" in found.err

    def test_before_the_extension_is_in_the_app(self, folder: Folder) -> None:
        folder.write("app.py", APP.replace("    webhooks.init_app(app, db)\n", ""))

        assert folder.webhooks("init").code == 0

        assert "account_id" in (folder.path / "webhooks.yaml").read_text()

    def test_other_wrong_settings_do_not_matter(self, folder: Folder) -> None:
        folder.write("app.py", APP)

        assert folder.webhooks("init", TRY_WEBHOOKS_TIMEOUT="[9, 1]").code == 0

    def test_a_factory_that_needs_the_extension_at_once(self, folder: Folder) -> None:
        folder.write(
            "app.py",
            APP.replace("    return app\n", "    app.extensions['webhooks'].bell\n    return app\n"),
        )

        assert folder.webhooks("init").code == 0

    def test_without_models_there_is_an_example(self, folder: Folder) -> None:
        text = re.sub(r"class Account.*?(?=def create_app)", "", APP, flags=re.S)
        folder.write("app.py", text)

        assert folder.webhooks("init").code == 0

        assert "examples.happened" in folder.webhooks("catalog").out


def test_the_example_apps_models(tmp_path: Path) -> None:
    draft = starter.draft(accounting, title="example_app")

    catalog = opened(tmp_path, draft.text)

    assert len(catalog.channels) == draft.channels >= 31
    invoices = catalog.channels["invoices"]
    assert invoices.owner == ("business_id",)
    assert invoices.schema == "example_app.schemas.sales:InvoiceSchema"
    assert list(invoices.events) == ["created", "updated", "deleted"]
    assert catalog.channels["businesses"].owner == ("id",)
    assert invoices.events["updated"].ignore == {"updated_at"}


def test_the_hosts_models(tmp_path: Path) -> None:
    catalog = opened(tmp_path, starter.draft(host, title="tests.host").text)

    owners = {name: ".".join(channel.owner or ()) for name, channel in catalog.channels.items()}
    assert owners == {"clients": "owner", "invoices": "owner", "lines": "invoice.owner"}
    assert catalog.channels["invoices"].schema == "tests.host:InvoiceSchema"


@pytest.mark.parametrize("db", [host, accounting], ids=["host", "accounting"])
def test_its_suggestions_load_too(db: SQLAlchemy, tmp_path: Path) -> None:
    """Events, includes and touches that stand in comments, for the channels that are not comments themselves."""
    text = starter.draft(db, title="x").text
    text = re.sub(r"^(    |      )# (\w+: [\[{].*)$", r"\1\2", text, flags=re.M)

    catalog = opened(tmp_path, text)

    assert any(channel.includes for channel in catalog.channels.values())
    assert any(event.when for event in catalog.events.values())


# ---- models that are awkward -----------------------------------------------------------------------------


class Base(DeclarativeBase):
    pass


odd = SQLAlchemy(model_class=Base)


class Business(odd.Model):  # type: ignore[name-defined]
    __tablename__ = "business"
    id: Mapped[int] = mapped_column(primary_key=True)


class Person(odd.Model):  # type: ignore[name-defined]
    __tablename__ = "person"
    id: Mapped[int] = mapped_column(primary_key=True)
    business_id: Mapped[int] = mapped_column(sa.ForeignKey("business.id"))
    password_hash: Mapped[str]


class Webhooks(odd.Model):  # type: ignore[name-defined]
    """Has the name of the channel that is ours."""

    __tablename__ = "webhooks"
    id: Mapped[int] = mapped_column(primary_key=True)
    business_id: Mapped[int] = mapped_column(sa.ForeignKey("business.id"))


class Letter(odd.Model):  # type: ignore[name-defined]
    __tablename__ = "letter to whom"
    id: Mapped[int] = mapped_column(primary_key=True)
    person_id: Mapped[int] = mapped_column(sa.ForeignKey("person.id"))
    person: Mapped[Person] = relationship()
    state: Mapped[str] = mapped_column(sa.Enum("new", "Sent: by post", name="letter_state"))


class Link(odd.Model):  # type: ignore[name-defined]
    __tablename__ = "link"
    letter_id: Mapped[int] = mapped_column(sa.ForeignKey("letter to whom.id"), primary_key=True)
    business_id: Mapped[int] = mapped_column(sa.ForeignKey("business.id"), primary_key=True)


class AccessToken(odd.Model):  # type: ignore[name-defined]
    __tablename__ = "access_token"
    id: Mapped[int] = mapped_column(primary_key=True)
    business_id: Mapped[int] = mapped_column(sa.ForeignKey("business.id"))
    digest: Mapped[str]


class Country(odd.Model):  # type: ignore[name-defined]
    __tablename__ = "country"
    id: Mapped[int] = mapped_column(primary_key=True)


@pytest.fixture
def draft(monkeypatch: pytest.MonkeyPatch) -> starter.Draft:
    # pytest's importlib mode knows this module by another name than an import would.
    for mapper in t.cast("t.Any", odd.Model).registry.mappers:
        monkeypatch.setattr(mapper.class_, "__module__", __name__)
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    return starter.draft(odd, title="odd")


def test_awkward_models_load_as_written(draft: starter.Draft, tmp_path: Path) -> None:
    catalog = opened(tmp_path, draft.text)

    owners = {name: ".".join(channel.owner or ()) for name, channel in catalog.channels.items()}
    assert owners == {
        "businesses": "id",
        "letter_to_whoms": "person.business_id",
        "webhooks_2": "business_id",
    }
    assert '{when: {state: "Sent: by post"}}' in draft.text


def test_what_is_left_out_says_why(draft: starter.Draft) -> None:
    reasons = re.findall(r"  # ([A-Z].*\n(?:  # \w.*\n)*?)  # (\w+):\n", draft.text)

    assert {name: reason.split(".")[0] for reason, name in reasons} == {
        "links": "It only ties other rows together",
        "access_tokens": "Its name sounds like secrets",
        "countries": "Nothing says whose data it is",
        "people": 'Without a schema every column of Person is sent, "password_hash" too',
    }
