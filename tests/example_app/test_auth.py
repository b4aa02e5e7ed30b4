"""Authentication: by form with a CSRF token, or by bearer token."""

from __future__ import annotations

import re

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from example_app.seed import PASSWORD
from example_app.webhooks import load_principal


def token_in(page: TestResponse) -> str:
    found = re.search(r'name="csrf_token" value="([^"]+)"', page.text)
    assert found is not None
    return found[1]


def sign_in(client: FlaskClient, email: str = "ada@acme.example", password: str = PASSWORD) -> TestResponse:
    token = token_in(client.get("/sign-in"))
    return client.post("/sign-in", data={"csrf_token": token, "email": email, "password": password})


def test_the_home_page_asks_to_sign_in(app: Flask) -> None:
    assert app.test_client().get("/").headers["Location"] == "/sign-in"


def test_the_right_password_leads_to_the_own_business(app: Flask) -> None:
    client = app.test_client()

    answer = sign_in(client)

    page = client.get("/").text
    assert answer.headers["Location"] == "/"
    assert "Acme" in page
    assert "Globex" not in page


@pytest.mark.parametrize(
    ("email", "password"),
    [("ada@acme.example", "wrong"), ("nobody@acme.example", PASSWORD), ("", "")],
)
def test_a_wrong_password_is_refused(app: Flask, email: str, password: str) -> None:
    client = app.test_client()

    answer = sign_in(client, email, password)

    assert answer.status_code == 422
    assert client.get("/").status_code == 302


def test_the_form_needs_its_csrf_token(app: Flask) -> None:
    client = app.test_client()
    client.get("/sign-in")

    answer = client.post("/sign-in", data={"email": "ada@acme.example", "password": PASSWORD})

    assert answer.status_code == 400
    assert client.get("/").status_code == 302


def test_the_token_from_before_the_sign_in_counts_no_more(app: Flask) -> None:
    client = app.test_client()
    before = token_in(client.get("/sign-in"))

    sign_in(client)

    assert client.post("/sign-out", data={"csrf_token": before}).status_code == 400


def test_a_cookie_alone_changes_nothing_through_the_api(app: Flask) -> None:
    client = app.test_client()
    sign_in(client)
    token = token_in(client.get("/"))

    without = client.patch("/api/business/1", json={"phone": "1"})
    within = client.patch("/api/business/1", json={"phone": "1"}, headers={"X-CSRF-Token": token})

    assert (without.status_code, within.status_code) == (400, 200)


def test_signing_out_ends_the_session(app: Flask) -> None:
    client = app.test_client()
    sign_in(client)

    client.post("/sign-out", data={"csrf_token": token_in(client.get("/"))})

    assert client.get("/").status_code == 302


@pytest.mark.parametrize("header", ["Bearer wrong", "Bearer", "Basic YTpi", "demo-token-ada"])
def test_a_wrong_token_is_refused_even_with_a_session(app: Flask, header: str) -> None:
    client = app.test_client()
    sign_in(client)

    answer = client.get("/api/invoices", headers={"Authorization": header})

    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("token", "owner", "rights"),
    [
        ("demo-token-ada", "1", {"read", "write", "secrets"}),
        ("demo-token-alan", "1", {"read"}),
        ("demo-token-bob", "2", {"read", "write", "secrets"}),
    ],
)
def test_webhooks_get_the_principal(app: Flask, token: str, owner: str, rights: set[str]) -> None:
    with app.test_request_context(headers={"Authorization": f"Bearer {token}"}):
        principal = load_principal()

    assert principal is not None
    assert (principal.owner, principal.rights) == (owner, rights)


def test_without_a_sign_in_there_is_no_principal(app: Flask) -> None:
    with app.test_request_context():
        assert load_principal() is None
