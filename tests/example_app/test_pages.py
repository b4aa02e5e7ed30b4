"""The home page: its content, and buttons that work without a script."""

from __future__ import annotations

import re

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from example_app.channels import RESOURCES

from .test_auth import sign_in, token_in


@pytest.fixture
def browser(app: Flask) -> FlaskClient:
    client = app.test_client()
    sign_in(client)
    return client


def press(browser: FlaskClient, address: str, **fields: str) -> TestResponse:
    token = token_in(browser.get("/"))
    return browser.post(address, data={"csrf_token": token, **fields}, follow_redirects=True)


def test_all_records_are_counted(browser: FlaskClient) -> None:
    page = browser.get("/").text

    counts = dict(re.findall(r'href="/api/(\w+)"><span>[^<]+</span> <b>(\d+)</b>', page))
    assert counts.keys() == RESOURCES.keys()
    assert (counts["invoices"], counts["business"]) == ("3", "1")


def test_the_console_is_linked(browser: FlaskClient) -> None:
    assert 'href="/webhooks/console/"' in browser.get("/").text


@pytest.mark.parametrize("address", ["/", "/sign-in"])
def test_pages_obey_the_content_security_policy(browser: FlaskClient, address: str) -> None:
    page = browser.get(address)

    assert page.headers["Content-Security-Policy"] == "default-src 'self'"
    assert not re.search(r"<script|<style|\sstyle=|\son\w+=|https?://", page.text)


def test_an_invoice_is_issued_sent_paid(browser: FlaskClient, acme: FlaskClient) -> None:
    press(browser, "/invoices", client_id="1", description="Tea", amount="12.30")
    invoice = acme.get("/api/invoices?include=line_items").get_json()["items"][0]
    for action in ("send", "pay"):
        press(browser, f"/invoices/{invoice['id']}/{action}")

    paid = acme.get(f"/api/invoices/{invoice['id']}").get_json()
    assert invoice["line_items"][0]["description"] == "Tea"
    assert (invoice["total"], invoice["status"], paid["status"]) == ("12.30", "draft", "paid")


def test_a_refusal_is_shown_and_changes_nothing(browser: FlaskClient, acme: FlaskClient) -> None:
    page = press(browser, "/invoices/2/pay").text

    assert "cannot become" in page
    assert acme.get("/api/invoices/2").get_json()["status"] == "draft"


def test_an_invoice_with_payments_is_not_deleted(browser: FlaskClient, acme: FlaskClient) -> None:
    kept, gone = press(browser, "/invoices/3/delete").text, press(browser, "/invoices/2/delete").text

    assert "has payments" in kept
    assert "delete done" in gone
    assert acme.get("/api/invoices").get_json()["total"] == 2


@pytest.mark.parametrize("amount", ["", "ten", "0", "-1", "NaN", "1e99"])
def test_a_wrong_amount_issues_nothing(browser: FlaskClient, acme: FlaskClient, amount: str) -> None:
    answer = press(browser, "/invoices", client_id="1", description="Tea", amount=amount)

    assert answer.status_code == 400
    assert acme.get("/api/invoices").get_json()["total"] == 3


def test_another_business_s_invoice_has_no_buttons(browser: FlaskClient, globex: FlaskClient) -> None:
    theirs = globex.get("/api/invoices").get_json()["items"][0]["id"]

    assert press(browser, f"/invoices/{theirs}/delete").status_code == 404
    assert globex.get(f"/api/invoices/{theirs}").status_code == 200


def test_buttons_need_a_csrf_token(browser: FlaskClient, acme: FlaskClient) -> None:
    assert browser.post("/invoices/2/delete").status_code == 400
    assert acme.get("/api/invoices/2").status_code == 200
