"""The redirects from the shared prefix to the console and to the host's sign-in, and the pages without access."""

from __future__ import annotations

import typing as t
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask, abort, redirect
from werkzeug.exceptions import TooManyRequests
from werkzeug.wrappers import Response

from flask_webhooks import Webhooks
from tests.console.conftest import Visitor, load_principal

Make = t.Callable[..., Flask]


@pytest.fixture
def make(make_app: Make) -> Make:
    def make(**config: t.Any) -> Flask:
        hooks = Webhooks()
        hooks.principal_loader(load_principal)
        return make_app(webhooks=hooks, **config)

    return make


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'test.sqlite'}"


def test_the_prefix_leads_to_the_console(make: Make) -> None:
    client = make().test_client()

    assert client.get("/webhooks/").location == "/webhooks/console/"
    assert client.get("/webhooks").status_code == 308
    assert client.post("/webhooks/").status_code == 405
    assert client.get("/webhook/").status_code == 404
    assert client.get("/webhooks/", base_url="http://x/shop").location == "/shop/webhooks/console/"


def test_so_does_a_longer_one(make: Make) -> None:
    client = make(WEBHOOKS_URL_PREFIX="/a/hooks").test_client()

    assert client.get("/a/hooks/").location == "/a/hooks/console/"


@pytest.mark.parametrize("path", ["/webhooks/", "/webhooks"])
def test_a_page_of_the_hosts_at_that_address_stays_theirs(make: Make, path: str) -> None:
    app = make()
    app.add_url_rule(path, "theirs", lambda: "theirs", methods=["GET", "POST"])
    client = app.test_client()

    assert client.get(path).text == "theirs"
    assert client.post(path).text == "theirs"


def test_a_visitor_is_redirected_to_an_endpoint_and_back(make: Make) -> None:
    app = make(WEBHOOKS_LOGIN_VIEW="sign_in")
    app.add_url_rule("/sign-in", "sign_in", lambda: "sign in")
    stranger = Visitor(app, owner=None)

    answer = stranger.get("/deliveries?state=failed")
    back = parse_qs(urlsplit(answer.location).query)["next"][0]

    assert answer.status_code == 302
    assert answer.location.startswith("/sign-in?next=")
    assert answer.headers["Cache-Control"] == "no-store"
    assert back == "/webhooks/console/deliveries?state=failed&signed_in=1"
    assert Visitor(app).client.get(back, headers={"X-Owner": "1"}).status_code == 200


def test_a_visitor_without_a_principal_is_not_redirected_in_a_loop(make: Make) -> None:
    app = make(WEBHOOKS_LOGIN_VIEW="https://id.example/sign-in?app=1")
    stranger = Visitor(app, owner=None)

    answer = stranger.get("/")
    page = stranger.get("/?signed_in=1")

    assert answer.location.startswith("https://id.example/sign-in?app=1&next=%2Fwebhooks%2Fconsole%2F%3F")
    assert page.status_code == 401
    assert ">Sign in</a>" in page.text


def test_forms_and_parts_of_pages_lead_by_way_of_a_page(make: Make) -> None:
    stranger = Visitor(make(WEBHOOKS_LOGIN_VIEW="/sign-in"), owner=None)

    form = stranger.post("/webhooks/new", token="")
    part = stranger.get("/deliveries/live", headers={"HX-Request": "true"})

    assert (form.status_code, form.location) == (303, "/webhooks/console/")
    assert (part.status_code, part.headers["HX-Refresh"]) == (204, "true")


def test_a_callable_says_where_or_nothing(make: Make) -> None:
    ways: list[Response | None] = [redirect("/there"), None]
    stranger = Visitor(make(WEBHOOKS_LOGIN_VIEW=lambda: ways.pop(0)), owner=None)

    assert stranger.get("/no/such/page").location == "/there"
    assert stranger.get("/").status_code == 401


@pytest.mark.parametrize("is_partial", [False, True])
def test_a_limit_of_the_hosts_is_a_page_of_ours(make: Make, is_partial: bool) -> None:
    app = make()

    @app.before_request
    def limit() -> t.NoReturn:
        raise TooManyRequests("1 per 1 minute", retry_after=7)

    headers = {"HX-Request": "true"} if is_partial else {}

    answer = Visitor(app).get("/", headers=headers)

    assert answer.status_code == 429
    assert answer.headers["Retry-After"] == "7"
    assert "Wait a moment" in answer.text
    assert ("<html" in answer.text) is not is_partial


def test_what_the_host_shows_itself_it_shows_here_too(make: Make) -> None:
    app = make()
    app.register_error_handler(429, lambda error: ("slow down", 429))
    app.before_request(lambda: abort(429))

    assert Visitor(app).get("/").text == "slow down"
