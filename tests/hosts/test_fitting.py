"""Names, engines and the single tenant that hosts have already: neither side disturbs the other."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Blueprint, Flask
from flask_sqlalchemy import SQLAlchemy

from flask_webhooks import ConfigurationError, Webhooks
from flask_webhooks.cli import scaffold
from flask_webhooks.state import state_of
from tests.capture.conftest import NOWHERE, events
from tests.host import make_transactional
from tests.hosts.conftest import CATALOG, Enter
from tests.hosts.studio import Note, Project, Task, db
from tests.stage import subscribe


@pytest.fixture
def make(tmp_path: Path) -> t.Iterator[t.Callable[..., Flask]]:
    """Makes a studio on SQLite that has not met us yet."""
    apps: list[Flask] = []

    def app_of(name: str = __name__, **config: t.Any) -> Flask:
        app = Flask(name, instance_path=str(tmp_path / "instance"))
        (tmp_path / "webhooks.yaml").write_text(CATALOG)
        app.config.update(
            SECRET_KEY="test",
            SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path / 'studio.sqlite'}",
            WEBHOOKS_CATALOG=str(tmp_path / "webhooks.yaml"),
            **config,
        )
        apps.append(app)
        return app

    yield app_of
    for app in apps:
        with app.app_context():
            db.session.remove()
            for engine in app.extensions["sqlalchemy"].engines.values():
                engine.dispose()


def settle(app: Flask) -> None:
    """Make the tables of the database that an app has now, and a subscription."""
    make_transactional(db.engine)
    db.create_all()
    subscribe(state_of(app), NOWHERE, "*", owner="studio")


class TestEngines:
    def switch(self, app: Flask, folder: Path) -> None:
        """What a fixture of tests does after the factory: another database, `db.init_app` once more."""
        app.config["SQLALCHEMY_DATABASE_URI"] = f"sqlite:///{folder / 'other.sqlite'}"
        app.extensions.pop("sqlalchemy")
        db.init_app(app)

    def test_another_database_after_init_app(self, make: t.Callable[..., Flask], tmp_path: Path) -> None:
        app = make()
        db.init_app(app)
        Webhooks(app, db)
        self.switch(app, tmp_path)
        with app.app_context():
            settle(app)
            db.session.add(Project(code="a"))
            db.session.commit()
            assert events(state_of(app)) == ["projects.created"]

    def test_a_second_call_says_what_to_do(self, make: t.Callable[..., Flask]) -> None:
        app = make()
        db.init_app(app)
        webhooks = Webhooks(app, db)
        with pytest.raises(ConfigurationError, match="already"):
            webhooks.init_app(app, db)


class TestNames:
    def test_an_app_called_like_a_package_of_pythons(self, make: t.Callable[..., Flask]) -> None:
        """`Flask("test")` has Python's own package for its root: with an absolute path the catalogue is found."""
        app = make("test")
        db.init_app(app)
        Webhooks(app, db)
        assert state_of(app).catalog.channels.keys() == {"projects", "tasks"}

    def test_a_blueprint_called_webhooks(self, make: t.Callable[..., Flask]) -> None:
        app = make()
        theirs = Blueprint("webhooks", __name__)
        theirs.add_url_rule("/incoming", "incoming", lambda: "theirs")
        app.register_blueprint(theirs, url_prefix="/stripe")
        db.init_app(app)
        Webhooks(name="hooks").init_app(app, db)
        assert app.test_client().get("/stripe/incoming").text == "theirs"

    def test_a_key_of_the_hosts_own(self, make: t.Callable[..., Flask]) -> None:
        app = make(WEBHOOKS_STRIPE_SECRET="whsec_theirs")
        db.init_app(app)
        Webhooks(app, db)

    def test_a_table_called_like_ours(self, make: t.Callable[..., Flask]) -> None:
        own = SQLAlchemy()
        sa.Table("webhook_messages", own.metadata, sa.Column("id", sa.Integer, primary_key=True))
        app = make(WEBHOOKS_TABLE_PREFIX="hooks_")
        (Path(app.config["WEBHOOKS_CATALOG"])).write_text(
            "version: 1\nchannels:\n  a: {events: [happened]}\n"
        )
        own.init_app(app)
        Webhooks(app, own)
        assert any(name.startswith("hooks_") for name in own.metadata.tables)


class TestTenants:
    def test_a_class_attribute_is_an_owner(self, enter: Enter) -> None:
        state = enter()
        db.session.add(Task(name="a"))
        db.session.commit()
        assert events(state) == ["tasks.created"]

    def test_a_constant_owner(self, enter: Enter) -> None:
        state = enter(CATALOG.replace("{owner: studio}", "{owner: {value: pixels}}"), owner="pixels")
        db.session.add(Task(name="a"))
        db.session.commit()
        assert events(state) == ["tasks.created"]

    def test_an_owner_by_key(self, enter: Enter) -> None:
        notes = "  notes:\n    model: tests.hosts.studio:Note\n    owner: project_id.studio_id\n    events: [created]\n"
        state = enter(CATALOG + notes, owner="7")
        db.session.add(project := Project(code="a"))
        db.session.flush()
        db.session.add(Note(project_id=project.id))
        db.session.commit()
        assert events(state) == ["notes.created"]

    def test_init_writes_a_catalogue_that_loads(self, make: t.Callable[..., Flask], tmp_path: Path) -> None:
        draft = scaffold.draft(db, title="studio")
        app = make()
        (tmp_path / "webhooks.yaml").write_text(draft.text)
        db.init_app(app)
        Webhooks(app, db)
        assert len(state_of(app).catalog.channels) == max(draft.channels, 1)


def test_commits_before_our_tables_exist_go_through(make: t.Callable[..., Flask]) -> None:
    app = make()
    db.init_app(app)
    Webhooks(app, db)
    with app.app_context():
        make_transactional(db.engine)
        db.create_all()
        ours = [table for name, table in db.metadata.tables.items() if name.startswith("webhook_")]
        db.metadata.drop_all(db.engine, tables=ours)
        db.session.add(Project(code="a"))
        db.session.commit()
        assert db.session.scalar(sa.select(sa.func.count()).select_from(Project)) == 1
        db.create_all()


def test_postgresql_without_its_old_driver(tmp_path: Path) -> None:
    """An app on psycopg2 that is not there does not come as far as us: Python says which driver is missing."""
    app = Flask(__name__, instance_path=str(tmp_path))
    app.config["SQLALCHEMY_DATABASE_URI"] = "postgresql+psycopg2://nobody@127.0.0.1:9/none"
    with pytest.raises(ModuleNotFoundError, match="psycopg2"):
        SQLAlchemy().init_app(app)
