"""Access to the console: only with a principal, only to the owner's own rows, and no form without its token."""

from __future__ import annotations

import re
import typing as t

import pytest
from flask import Flask

from flask_webhooks.console import csrf
from flask_webhooks.console.pages import PAGES
from flask_webhooks.state import AppState, Principal
from tests.console.conftest import Log, Visitor, on_one_database, places, write_log
from tests.stage import subscribe


def test_without_a_principal_nothing_is_shown(app: Flask, state: AppState, log: Log) -> None:
    stranger = Visitor(app, owner=None)

    for method, path in [*places(state, log), ("GET", "/no/such/page")]:
        answer = stranger.get(path) if method == "GET" else stranger.post(path, token="")

        assert answer.status_code == 401, path
        assert "example.com" not in answer.text


def test_another_owners_page_is_not_there(app: Flask, state: AppState, log: Log) -> None:
    other = Visitor(app, owner="2")

    for method, path in places(state, log):
        if (
            log.subscription.id not in path
            and log.deliveries["failed"] not in path
            and log.replay not in path
        ):
            continue
        answer = other.get(path) if method == "GET" else other.post(path, {"active": "on"})

        assert answer.status_code == 404, path
        assert "example.com" not in answer.text


def test_lists_hold_ones_own_alone(app: Flask, state: AppState, log: Log) -> None:
    theirs = write_log(state, "https://other.example/hooks", owner="2")
    visitor = Visitor(app)

    for path in (
        "/",
        "/deliveries",
        "/deliveries/live?anchor=00000000-0000-7000-8000-000000000000",
        "/events/invoices.created",
    ):
        assert "other.example" not in visitor.get(path).text
        assert theirs.subscription.id not in visitor.get(path).text


def test_another_owners_webhook_is_no_filter(visitor: Visitor, state: AppState, log: Log) -> None:
    theirs = write_log(state, "https://other.example/hooks", owner="2")

    assert (
        theirs.deliveries["failed"] not in visitor.get(f"/deliveries?webhook={theirs.subscription.id}").text
    )


def test_operators_see_every_owner(app: Flask, state: AppState, log: Log) -> None:
    write_log(state, "https://other.example/hooks", owner="2")
    operator = Visitor(app, owner="9", operator=True)

    page = operator.get("/").text

    assert "example.com" in page
    assert "other.example" in page
    assert operator.get("/operator").status_code == 200
    assert operator.get(f"/deliveries/{log.deliveries['failed']}").status_code == 200
    assert Visitor(app).get("/operator").status_code == 404


@on_one_database
def test_readers_change_nothing(app: Flask, state: AppState, log: Log) -> None:
    reader = Visitor(app, rights="read")
    token = csrf.make(state, Principal("1", frozenset({"read"})))

    needing = {(page.method, page.right) for page in PAGES}
    for method, path in places(state, log):
        if method == "POST":
            assert reader.post(path, token=token).status_code in (
                {403} if path != "/preview" else {403, 404}
            ), path
    assert ("POST", "write") in needing
    assert reader.get("/webhooks/new").status_code == 403
    assert "Switch off" not in reader.get(f"/webhooks/{log.subscription.id}").text


@on_one_database
def test_secrets_need_their_own_right(app: Flask, log: Log) -> None:
    writer = Visitor(app, rights="read,write")

    assert writer.post(f"/webhooks/{log.subscription.id}/secret").status_code == 403
    assert writer.post(f"/webhooks/{log.subscription.id}/rotate").status_code == 403
    assert "Show the secret" not in writer.get(f"/webhooks/{log.subscription.id}").text


@on_one_database
def test_without_the_right_to_read_there_is_nothing(app: Flask) -> None:
    assert Visitor(app, rights="write").get("/").status_code == 403


# ---- tokens ----------------------------------------------------------------------------------------------


def test_every_post_needs_a_token(visitor: Visitor, state: AppState, log: Log) -> None:
    for method, path in places(state, log):
        if method == "POST":
            assert visitor.post(path, token="").status_code == 400, path
            assert visitor.post(path, token="forged").status_code == 400, path


@on_one_database
def test_every_form_carries_a_token(visitor: Visitor, state: AppState, log: Log) -> None:
    count = 0
    for method, path in places(state, log):
        page = visitor.get(path).text if method == "GET" else ""
        for form in re.findall(r'<form[^>]*method="post".*?</form>', page, re.DOTALL):
            assert 'name="webhooks_token"' in form, (path, form[:200])
            count += 1
    assert count > 10


@on_one_database
@pytest.mark.parametrize(
    "lender",
    [{"owner": "2"}, {"rights": "read,write"}, {"operator": True}],
    ids=["another owner", "a colleague with fewer rights", "an operator"],
)
def test_a_token_fits_only_whom_it_was_made_for(app: Flask, lender: dict[str, t.Any], log: Log) -> None:
    token = Visitor(app, **lender).token()

    answer = Visitor(app).post(f"/webhooks/{log.subscription.id}/switch", token=token)

    assert answer.status_code == 400


@on_one_database
@pytest.mark.parametrize(
    "headers",
    [{"Sec_Fetch_Site": "cross-site"}, {"Sec_Fetch_Site": "same-site"}, {"Origin": "https://evil.example"}],
)
def test_what_another_site_sends_is_refused(visitor: Visitor, log: Log, headers: dict[str, str]) -> None:
    answer = visitor.post(f"/webhooks/{log.subscription.id}/switch", **headers)

    assert answer.status_code == 400


@on_one_database
def test_a_form_of_a_page_without_tls_is_refused_by_the_console(app: Flask, log: Log) -> None:
    """An attacker on the network can write such a page in the name of our own host."""
    path, visitor = f"/webhooks/{log.subscription.id}/switch", Visitor(app)
    token = visitor.token()
    app.config["PREFERRED_URL_SCHEME"] = "https"

    assert visitor.post(path, token=token, Origin="http://localhost").status_code == 400
    assert visitor.post(path, token=token, Origin="https://localhost").status_code == 303


@on_one_database
def test_changes_go_by_post_alone(visitor: Visitor, log: Log) -> None:
    for path in ("switch", "remove", "rotate", "secret", "test"):
        assert visitor.get(f"/webhooks/{log.subscription.id}/{path}").status_code in (404, 405)


def test_an_id_that_is_none_is_not_found(visitor: Visitor) -> None:
    for path in ("/webhooks/1", "/deliveries/'", "/replays/%00", "/events/nothing.at_all"):
        assert visitor.get(path).status_code == 404


def test_removed_webhooks_leave_a_readable_log(visitor: Visitor, state: AppState, log: Log) -> None:
    visitor.post(f"/webhooks/{log.subscription.id}/remove")

    assert visitor.get(f"/webhooks/{log.subscription.id}").status_code == 404
    assert visitor.get(f"/deliveries/{log.deliveries['failed']}").status_code == 200
    assert log.deliveries["failed"] in visitor.get("/deliveries").text


def test_a_page_of_nothing_still_says_who_one_is_not(app: Flask, state: AppState) -> None:
    subscribe(state, "https://example.com/", "*", owner="2")

    assert "example.com" not in Visitor(app).get("/").text
