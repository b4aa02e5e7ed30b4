"""API and console with Flask-WTF, Flask-Compress, Flask-Login and Flask-Limiter, in both orders of initialisation."""

from __future__ import annotations

from pathlib import Path

import pytest
from flask import Flask

from tests.console.conftest import Visitor
from tests.neighbours.app import HEADERS, beside

BODY = {"url": "http://127.0.0.1:5999/hooks", "events": ["invoices.*"]}
in_any_order = pytest.mark.parametrize("is_first", [True, False], ids=["first", "last"])


@in_any_order
def test_csrf_protect_asks_us_for_no_token_of_its_own(tmp_path: Path, is_first: bool) -> None:
    wtf = pytest.importorskip("flask_wtf")
    with beside(tmp_path, wtf.CSRFProtect, is_first=is_first) as app:
        app.add_url_rule("/host", "host", lambda: "", methods=["POST"])
        client = app.test_client()

        made = client.post("/webhooks/api/subscriptions", json=BODY, headers=HEADERS)
        forged = client.post(
            "/webhooks/api/subscriptions",
            json=BODY,
            headers={"X-Owner": "1", "Cookie": "session=x", "Sec-Fetch-Site": "cross-site"},
        )
        path = f"/webhooks/{made.get_json()['id']}/switch"
        switched = Visitor(app).post(path, {})
        untrue = Visitor(app).post(path, {}, token="")

        assert made.status_code == 201
        assert forged.status_code == 403
        assert switched.status_code == 303
        assert untrue.status_code == 400
        assert client.post("/host").status_code == 400
        assert b"CSRF" in client.post("/host").data


def test_another_extension_by_that_name_is_left_alone(tmp_path: Path) -> None:
    with beside(tmp_path, lambda app: app.extensions.setdefault("csrf", object())) as app:
        answer = app.test_client().post("/webhooks/api/subscriptions", json=BODY, headers=HEADERS)

    assert answer.status_code == 201


@in_any_order
def test_if_match_takes_the_tag_of_what_was_compressed(tmp_path: Path, is_first: bool) -> None:
    compress = pytest.importorskip("flask_compress")
    with beside(tmp_path, compress.Compress, is_first=is_first, COMPRESS_MIN_SIZE=1) as app:
        client = app.test_client()
        made = client.post("/webhooks/api/subscriptions", json=BODY, headers=HEADERS).get_json()
        path = f"/webhooks/api/subscriptions/{made['id']}"
        tag = client.get(path, headers={**HEADERS, "Accept-Encoding": "gzip"}).headers["ETag"]

        again = client.get(path, headers={**HEADERS, "Accept-Encoding": "gzip", "If-None-Match": tag})
        changed = client.patch(path, json={"description": "a"}, headers={**HEADERS, "If-Match": tag})
        late = client.patch(path, json={"description": "b"}, headers={**HEADERS, "If-Match": tag})

    assert tag == '"1:gzip"'
    assert again.status_code == 304
    assert changed.status_code == 200
    assert late.status_code == 412


def _limiter(app: Flask) -> None:
    limiter = pytest.importorskip("flask_limiter")
    limiter.Limiter(
        lambda: "me", app=app, default_limits=["1 per hour"], storage_uri="memory://", headers_enabled=True
    )


@in_any_order
def test_a_limit_is_shown_on_a_page_of_the_console(tmp_path: Path, is_first: bool) -> None:
    with beside(tmp_path, _limiter, is_first=is_first) as app:
        visitor = Visitor(app)

        assert visitor.get("/").status_code == 200
        page = visitor.get("/")
        part = visitor.get("/", headers={"HX-Request": "true"})

    assert page.status_code == part.status_code == 429
    assert int(page.headers["Retry-After"]) > 60
    assert "Wait a moment" in page.text
    assert "</html>" in page.text
    assert "</html>" not in part.text


def _login(app: Flask) -> None:
    login = pytest.importorskip("flask_login")

    class User(login.UserMixin):  # type: ignore[misc, name-defined]
        id = "7"

    manager = login.LoginManager(app)
    manager.login_view = "sign_in"
    manager.request_loader(lambda request: User() if "X-User" in request.headers else None)
    app.add_url_rule("/sign-in", "sign_in", lambda: "sign in")


@in_any_order
def test_anonymous_visitors_are_led_to_the_login_view(tmp_path: Path, is_first: bool) -> None:
    with beside(tmp_path, _login, is_first=is_first) as app:
        stranger = Visitor(app, owner=None)

        page = stranger.get("/deliveries?state=failed")
        form = stranger.post("/webhooks/new", token="")
        part = stranger.get("/deliveries/live", headers={"HX-Request": "true"})
        signed_in = stranger.get("/", headers={"X-User": "7"})
        api = app.test_client().get("/webhooks/api/catalog")

    assert page.location == "/sign-in?next=%2Fwebhooks%2Fconsole%2Fdeliveries%3Fstate%3Dfailed"
    assert form.location == "/webhooks/console/"
    assert part.headers["HX-Refresh"] == "true"
    assert signed_in.status_code == 403  # and not led back and forth
    assert "your account has no access to webhooks" in signed_in.text
    assert api.status_code == 401


def test_without_a_login_view_there_is_no_redirect(tmp_path: Path) -> None:
    def add(app: Flask) -> None:
        pytest.importorskip("flask_login").LoginManager(app).request_loader(lambda request: None)

    with beside(tmp_path, add) as app:
        assert Visitor(app, owner=None).get("/").status_code == 401
