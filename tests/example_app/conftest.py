"""A seeded app for each test: a copy of one SQLite file, so that passwords are hashed only once."""

from __future__ import annotations

import shutil
import typing as t
from collections.abc import Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from example_app import create_app
from example_app.models import db
from example_app.seed import demo_token, seed


def make_app(database: Path, **config: t.Any) -> Flask:
    uri = f"sqlite:///{database}"
    return create_app({"TESTING": True, "SECRET_KEY": "test", "SQLALCHEMY_DATABASE_URI": uri, **config})


def close(app: Flask) -> None:
    with app.app_context():
        db.session.remove()
        db.engine.dispose()


@pytest.fixture(scope="session")
def seeded_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("seeded") / "example.sqlite"
    app = make_app(file)
    with app.app_context():
        seed(db)
    close(app)  # the last connection to close moves the write-ahead log into the file
    return file


@pytest.fixture
def app(seeded_file: Path, tmp_path: Path) -> Iterator[Flask]:
    app = make_app(shutil.copy(seeded_file, tmp_path / "example.sqlite"))
    yield app
    close(app)


def client_of(app: Flask, email: str) -> FlaskClient:
    client = app.test_client()
    client.environ_base["HTTP_AUTHORIZATION"] = f"Bearer {demo_token(email)}"
    return client


@pytest.fixture
def acme(app: Flask) -> FlaskClient:
    return client_of(app, "ada@acme.example")


@pytest.fixture
def globex(app: Flask) -> FlaskClient:
    return client_of(app, "bob@globex.example")
