"""`flask webhooks init` writes a catalogue that loads without changes, starting from an empty folder."""

from __future__ import annotations

import re
import sys
import typing as t
from pathlib import Path

import click
import pytest
import sqlalchemy as sa
from click.testing import CliRunner
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from example_app.models import db as accounting
from flask_webhooks.bindings import open_catalog
from flask_webhooks.catalog import Catalog
from flask_webhooks.cli import scaffold
from flask_webhooks.cli.catalog import ask_whose
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
    draft = scaffold.draft(accounting, title="example_app")

    catalog = opened(tmp_path, draft.text)

    assert len(catalog.channels) == draft.channels >= 31
    invoices = catalog.channels["invoices"]
    assert invoices.owner == ("business_id",)
    assert invoices.schema == "example_app.schemas.sales:InvoiceSchema"
    assert list(invoices.events) == ["created", "updated", "deleted"]
    assert catalog.channels["businesses"].owner == ("id",)
    assert invoices.events["updated"].ignore == {"updated_at"}


def test_the_hosts_models(tmp_path: Path) -> None:
    catalog = opened(tmp_path, scaffold.draft(host, title="tests.host").text)

    owners = {name: ".".join(channel.owner or ()) for name, channel in catalog.channels.items()}
    assert owners == {"clients": "owner", "invoices": "owner", "lines": "invoice.owner"}
    assert catalog.channels["invoices"].schema == "tests.host:InvoiceSchema"


@pytest.mark.parametrize("db", [host, accounting], ids=["host", "accounting"])
def test_its_suggestions_load_too(db: SQLAlchemy, tmp_path: Path) -> None:
    """Events, includes and touches that stand in comments, for the channels that are not comments themselves."""
    text = scaffold.draft(db, title="x").text
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


class OldToken(odd.Model):  # type: ignore[name-defined]
    """Is left out for more than one reason."""

    __tablename__ = "old_token"
    id: Mapped[int] = mapped_column(primary_key=True)
    pin_hash: Mapped[str]


class PipelineBase(DeclarativeBase):
    pass


films = SQLAlchemy(model_class=PipelineBase)


class Project(films.Model):  # type: ignore[name-defined]
    __tablename__ = "project"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_status_id: Mapped[int] = mapped_column(sa.ForeignKey("project_status.id"))


class ProjectStatus(films.Model):  # type: ignore[name-defined]
    """Every foreign key to a project leads to this row, which is no tenant."""

    __tablename__ = "project_status"
    id: Mapped[int] = mapped_column(primary_key=True)


class Human(films.Model):  # type: ignore[name-defined]
    """Has made nearly everything."""

    __tablename__ = "person"
    id: Mapped[int] = mapped_column(primary_key=True)
    team_project_id: Mapped[int | None] = mapped_column(sa.ForeignKey("project.id"))


class Shot(films.Model):  # type: ignore[name-defined]
    __tablename__ = "shot"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(sa.ForeignKey("project.id"))
    person_id: Mapped[int] = mapped_column(sa.ForeignKey("person.id"))
    name: Mapped[str]


class Task(films.Model):  # type: ignore[name-defined]
    __tablename__ = "task"
    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(sa.ForeignKey("project.id"))
    shot_id: Mapped[int | None] = mapped_column(sa.ForeignKey("shot.id"))
    person_id: Mapped[int] = mapped_column(sa.ForeignKey("person.id"))


class Version(films.Model):  # type: ignore[name-defined]
    __tablename__ = "version"
    id: Mapped[int] = mapped_column(primary_key=True)
    shot_id: Mapped[int] = mapped_column(sa.ForeignKey("shot.id"))
    shot: Mapped[Shot] = relationship()


class Comment(films.Model):  # type: ignore[name-defined]
    __tablename__ = "comment"
    id: Mapped[int] = mapped_column(primary_key=True)
    task_id: Mapped[int] = mapped_column(sa.ForeignKey("task.id"))


def importable(db: SQLAlchemy, monkeypatch: pytest.MonkeyPatch) -> SQLAlchemy:
    """Let models of this file be found: pytest's importlib mode knows it by another name than an import would."""
    for mapper in t.cast("t.Any", db.Model).registry.mappers:
        monkeypatch.setattr(mapper.class_, "__module__", __name__)
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    return db


@pytest.fixture
def draft(monkeypatch: pytest.MonkeyPatch) -> scaffold.Draft:
    return scaffold.draft(importable(odd, monkeypatch), title="odd")


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> SQLAlchemy:
    """Models that know each other by keys."""
    return importable(films, monkeypatch)


def owners(catalog: Catalog) -> dict[str, str]:
    return {
        name: channel.sole_owner or ".".join(channel.owner or ())
        for name, channel in catalog.channels.items()
    }


def uncommented(text: str) -> str:
    """The whole file with each block that was left out, as an editor uncomments it."""
    head, _, left = text.partition("  # Left out.")
    _, _, blocks = left.partition("\n\n")
    return head + re.sub(r"^  # ", "  ", blocks, flags=re.M)


def reasons(text: str) -> dict[str, list[str]]:
    """Channel that was left out to all that is said of it, each up to its first full stop."""
    found: dict[str, list[str]] = {}
    said: list[str] = []
    for line in text.partition("  # Left out.")[2].splitlines():
        if line.startswith("  # # ") and line[6].isupper():
            said.append(line.removeprefix("  # # ").partition(".")[0] + ".")
        elif name := re.fullmatch(r"  # (\w+):", line):
            found[name[1]], said = said, []
    return found


def test_awkward_models_load_as_written(draft: scaffold.Draft, tmp_path: Path) -> None:
    catalog = opened(tmp_path, draft.text)

    assert owners(catalog) == {
        "businesses": "id",
        "letter_to_whoms": "person.business_id",
        "people": "business_id",
        "webhooks_2": "business_id",
    }
    assert catalog.channels["people"].exclude == ("password_hash",)
    assert '{when: {state: "Sent: by post"}}' in draft.text


def test_what_is_left_out_says_why(draft: scaffold.Draft) -> None:
    assert reasons(draft.text) == {
        "links": ["It only links other rows."],
        "access_tokens": ["Its name sounds like secrets."],
        "countries": ["Nothing says whose data it is."],
        "old_tokens": ["Its name sounds like secrets.", "Nothing says whose data it is."],
    }


def test_what_is_left_out_can_be_uncommented_as_it_is(draft: scaffold.Draft, tmp_path: Path) -> None:
    catalog = opened(tmp_path, uncommented(draft.text))

    assert draft.left_out == 4
    assert len(catalog.channels) == draft.channels + 4
    assert owners(catalog)["access_tokens"] == "business_id"
    assert owners(catalog)["countries"] == "nobody"
    assert catalog.channels["old_tokens"].exclude == ("pin_hash",)


@pytest.mark.parametrize("db", [host, accounting], ids=["host", "accounting"])
def test_so_it_can_in_other_apps(db: SQLAlchemy, tmp_path: Path) -> None:
    draft = scaffold.draft(db, title="x")

    assert len(opened(tmp_path, uncommented(draft.text)).channels) == draft.channels + draft.left_out


class TestOneTenant:
    """For the whole app: guessed, asked for, or said."""

    def test_it_leads_over_keys_without_relationships(self, pipeline: SQLAlchemy, tmp_path: Path) -> None:
        draft = scaffold.draft(pipeline, title="x")
        found = owners(opened(tmp_path, draft.text))

        assert found == {
            "comments": "task_id.project_id",
            "people": "team_project_id",
            "projects": "id",
            "shots": "project_id",
            "tasks": "project_id",
            "versions": "shot.project_id",
        }, "neither who made a row nor what state it is in"
        assert draft.whose.startswith("Owner: Project, a guess.")
        text = re.sub(r"\s*#\s*", " ", draft.text)
        assert "Guessed, because 6 of 7 models lead to Project: is it right? It might be Human (5)" in text

    def test_a_terminal_is_asked(self, pipeline: SQLAlchemy, tmp_path: Path) -> None:
        seen: list[tuple[list[str], int]] = []

        def ask(found: t.Sequence[scaffold.Tenancy], count: int) -> scaffold.Tenancy:
            seen.append(([each.name for each in found], count))
            return next(each for each in found if each.name == "Human")

        draft = scaffold.draft(pipeline, title="x", ask=ask)

        assert seen[0][0][:2] == ["Project", "Human"]
        assert seen[0][1] == 7
        assert owners(opened(tmp_path, draft.text))["tasks"] == "person_id"
        assert draft.whose == ""
        assert "Guessed" not in draft.text

    @pytest.mark.parametrize("name", ["Human", "person", f"{__name__}:Human"])
    def test_it_is_named(self, pipeline: SQLAlchemy, tmp_path: Path, name: str) -> None:
        draft = scaffold.draft(pipeline, title="x", tenant=name)

        assert owners(opened(tmp_path, draft.text))["comments"] == "task_id.person_id"

    def test_no_owner_has_this_name(self, pipeline: SQLAlchemy) -> None:
        with pytest.raises(
            scaffold.NoTenant, match=r"No model is called 'Projct'\. Did you mean \"Project\""
        ):
            scaffold.draft(pipeline, title="x", tenant="Projct")

    def test_one_owner_of_everything(self, pipeline: SQLAlchemy, tmp_path: Path) -> None:
        draft = scaffold.draft(pipeline, title="x", owner_value='the "studio"')

        assert set(owners(opened(tmp_path, draft.text)).values()) == {'the "studio"'}
        assert draft.left_out == 0
        assert draft.text.count("owner:") == 1


@pytest.mark.parametrize(
    ("typed", "expected"), [("\n", "A"), ("2\n", "B"), ("3\nstudio\n", "studio"), ("9\n4\n", None)]
)
def test_the_question(typed: str, expected: str | None) -> None:
    found = [scaffold.Tenancy("A"), scaffold.Tenancy("B")]

    def answer() -> None:
        said = ask_whose(found, 3)
        click.echo(f"answer: {said.name if isinstance(said, scaffold.Tenancy) else said}")

    result = CliRunner().invoke(click.Command("x", callback=answer), input=typed)

    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1] == f"answer: {expected}"


def test_the_options(folder: Folder) -> None:
    folder.write("app.py", APP)

    assert folder.webhooks("init", "--owner-value", "us").code == 0
    assert 'owner: {value: "us"}' in (folder.path / "webhooks.yaml").read_text()
    assert folder.webhooks("catalog").code == 0
    wrong = folder.webhooks("init", "--force", "--tenant", "Acount")
    assert wrong.code == 1
    assert 'Did you mean "Account"?' in wrong.err
    assert folder.webhooks("init", "--force", "--tenant", "Account", "--owner-value", "us").code == 2
