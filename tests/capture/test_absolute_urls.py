"""URLs that schemas make use the base URL that the host has configured, whatever `Host` a client sends."""

from __future__ import annotations

import json
import typing as t
from importlib.metadata import version
from pathlib import Path

import marshmallow as ma
import pytest
from flask import Flask, request, url_for

from flask_webhooks.absolute import place_of_app
from flask_webhooks.api.test_send import _dumped
from flask_webhooks.checks.catalog import check_urls
from flask_webhooks.config import Settings
from flask_webhooks.errors import ConfigurationError, PayloadError
from flask_webhooks.state import state_of
from tests.api.conftest import lasting
from tests.capture.conftest import NOWHERE
from tests.console.conftest import on_one_database
from tests.host import Invoice, InvoiceSchema, db
from tests.stage import recorded, subscribe

Make = t.Callable[..., Flask]
EVIL = "http://evil.example/"
FLASK = tuple(int(part) for part in version("flask").split(".")[:2])


@pytest.fixture
def linked() -> t.Iterator[dict[str, t.Any]]:
    """The number of an invoice is a URL of the host's, for the schema only; what `url_for` is asked with."""
    asked: dict[str, t.Any] = {}
    field = InvoiceSchema._declared_fields["number"]
    before = field.attribute
    field.attribute = "link"
    Invoice.link = property(lambda self: url_for("invoice", number=self.id, **asked))
    yield asked
    field.attribute = before
    del Invoice.link


def make(make_app: Make, **config: t.Any) -> Flask:
    app = make_app(**config)
    said: list[str] = []

    @app.post("/invoices")
    def invoice_made() -> str:
        db.session.add(Invoice(owner="1"))
        db.session.commit()
        said.append(url_for("invoice", number=0, _external=True))
        return said[-1] + " " + request.host

    app.add_url_rule("/invoices/<int:number>", "invoice", lambda number: "")
    with app.app_context():
        subscribe(state_of(app), NOWHERE, "invoices.created")
    return app


def sent(app: Flask) -> list[str]:
    """The URLs in the data of all messages."""
    return [json.loads(each.data)["number"] for each in messages(app)]


def messages(app: Flask) -> t.Any:
    with app.app_context():
        return recorded(state_of(app))


@on_one_database
@pytest.mark.parametrize("is_external", [None, True, False])
@pytest.mark.parametrize(("config", "place"), [
    ({"WEBHOOKS_BASE_URL": "https://app.example.com"}, "https://app.example.com"),
    ({"WEBHOOKS_BASE_URL": "https://app.example.com:8443/shop/"}, "https://app.example.com:8443/shop"),
    ({"SERVER_NAME": "app.example.com", "PREFERRED_URL_SCHEME": "https", "APPLICATION_ROOT": "/a"},
     "https://app.example.com/a"),
    ({"WEBHOOKS_BASE_URL": "https://b.example", "SERVER_NAME": "app.example.com"}, "https://b.example"),
])  # fmt: skip
def test_they_are_the_same_in_a_request_and_outside(
    make_app: Make, linked: dict[str, t.Any], config: dict[str, t.Any], place: str, is_external: bool | None
) -> None:
    linked.update({} if is_external is None else {"_external": is_external})
    app = make(make_app, **config)

    # Before 3.1 Flask itself answers 404 to a host that is not SERVER_NAME.
    host = EVIL if FLASK >= (3, 1) else f"http://{config.get('SERVER_NAME', 'evil.example')}/"
    answer = app.test_client().post("/invoices", base_url=host)
    with app.app_context():
        db.session.add(Invoice(owner="1"))
        db.session.commit()

    assert answer.status_code == 200
    assert sent(app) == [f"{place}/invoices/1", f"{place}/invoices/2"]


@on_one_database
def test_without_a_place_a_path_stays_a_path(make_app: Make, linked: dict[str, t.Any]) -> None:
    app = make(make_app)

    app.test_client().post("/invoices", base_url="http://evil.example/shop")

    assert sent(app) == ["/shop/invoices/1"]


@on_one_database
def test_and_the_client_chooses_no_host(make_app: Make, linked: dict[str, t.Any]) -> None:
    linked["_external"] = True
    app = make(make_app, WEBHOOKS_ON_ERROR="record")

    answer = app.test_client().post("/invoices", base_url=EVIL)
    with app.app_context():
        db.session.add(Invoice(owner="1"))
        db.session.commit()

    assert answer.status_code == 200  # the commit went through
    assert "evil" not in str([vars(each) for each in messages(app)])


@on_one_database
def test_the_error_names_the_settings(make_app: Make, linked: dict[str, t.Any]) -> None:
    app = make(make_app)
    with app.app_context(), pytest.raises(PayloadError, match="WEBHOOKS_BASE_URL, or SERVER_NAME"):
        db.session.add(Invoice(owner="1"))
        db.session.commit()
    with app.app_context():
        db.session.rollback()


def test_a_test_of_a_record_has_them_too(tmp_path: Path, linked: dict[str, t.Any]) -> None:
    with lasting(tmp_path, WEBHOOKS_BASE_URL="https://app.example.com") as app:
        app.add_url_rule("/invoices/<int:number>", "invoice", lambda number: "")
        with app.app_context():
            db.session.add(Invoice(id=7, owner="1"))
            db.session.commit()
        state, invoices = state_of(app), state_of(app).bound["invoices"]

        with app.test_request_context(base_url=EVIL), app.app_context():
            data = _dumped(state, invoices, state.catalog.events["invoices.created"], "7", "1")

    assert data is not None
    assert data["number"] == "https://app.example.com/invoices/7"


@pytest.mark.parametrize("url", ["app.example.com", "ftp://a/", "https://", "https://a/?b", "https://a/#b", "", 5,
                                 "https://me:hush@a/"])  # fmt: skip
def test_a_place_is_a_url(url: t.Any) -> None:
    with pytest.raises(ConfigurationError, match="WEBHOOKS_BASE_URL"):
        Settings.read({"WEBHOOKS_BASE_URL": url})


def test_none_is_named_without_a_setting() -> None:
    assert place_of_app({"SERVER_NAME": None, "APPLICATION_ROOT": "/"}, None) is None


class URLFor(ma.fields.Field):
    """Stands for that of flask-marshmallow, whose name and module are what is looked at."""


URLFor.__module__ = "flask_marshmallow.fields"


@on_one_database
@pytest.mark.parametrize("is_method", [True, False])
def test_check_warns_of_schemas_that_make_them(
    make_app: Make, monkeypatch: pytest.MonkeyPatch, is_method: bool
) -> None:
    field = ma.fields.Function(lambda row: url_for("invoice", number=row.id)) if is_method else URLFor()
    monkeypatch.setitem(InvoiceSchema._declared_fields, "link", field)
    state = state_of(make_app())
    opened = state.catalog, state.bound

    [finding] = check_urls(opened, None).findings
    assert "InvoiceSchema.link build URLs" in finding.message
    assert "WEBHOOKS_BASE_URL" in finding.message
    assert check_urls(opened, "https://app.example.com").findings == ()


@on_one_database
def test_and_of_no_others(make_app: Make) -> None:
    state = state_of(make_app())

    assert check_urls((state.catalog, state.bound), None) is None
