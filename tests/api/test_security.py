"""Security schemes in OpenAPI as the host configures them, and the headers of the documentation page."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest
from openapi_spec_validator import validate
from werkzeug.middleware.proxy_fix import ProxyFix

from flask_webhooks.api import POLICY
from flask_webhooks.errors import ConfigurationError

from .conftest import Customer, lasting

KEY = {"type": "apiKey", "in": "header", "name": "X-Api-Key"}


@pytest.mark.parametrize(("given", "scheme", "challenge"), [
    ("bearer", {"type": "http", "scheme": "bearer"}, 'Bearer realm="webhooks"'),
    ("cookie", {"type": "apiKey", "in": "cookie", "name": "sid"}, 'Cookie realm="webhooks"'),
    (KEY, KEY, 'ApiKey realm="webhooks", header="X-Api-Key"'),
    ([KEY, "cookie"], KEY, 'ApiKey realm="webhooks", header="X-Api-Key"'),
    ({"type": "http", "scheme": "basic"}, {"type": "http", "scheme": "basic"}, 'Bearer realm="webhooks"'),
])  # fmt: skip
def test_the_scheme_is_the_hosts(tmp_path: Path, given: t.Any, scheme: t.Any, challenge: str) -> None:
    with lasting(tmp_path, WEBHOOKS_SECURITY_SCHEME=given, SESSION_COOKIE_NAME="sid") as app:
        document = Customer(app.test_client())("GET", "/openapi.json", expect=200)
        refused = app.test_client().get("/webhooks/api/subscriptions")

    validate(document)
    schemes = document["components"]["securitySchemes"]
    assert scheme.items() <= schemes["host"].items()
    assert document["security"] == [{name: []} for name in schemes]
    assert len(schemes) == (len(given) if isinstance(given, list) else 1)
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"] == challenge


@pytest.mark.parametrize("given", [
    "basic", [], None, 5, {}, {"type": "apiKey"}, {"type": "apiKey", "in": "header", "name": 'X"\r\n'}, {"type": "key"},
])  # fmt: skip
def test_a_scheme_that_is_none_stops_the_app(tmp_path: Path, given: t.Any) -> None:
    with (
        pytest.raises(ConfigurationError, match="WEBHOOKS_SECURITY_SCHEME"),
        lasting(tmp_path, WEBHOOKS_SECURITY_SCHEME=given),
    ):
        pass


def test_a_key_in_a_header_proves_that_a_change_was_meant(tmp_path: Path) -> None:
    browser = {"Cookie": "session=x", "Sec-Fetch-Site": "cross-site", "X-Owner": "1"}
    with lasting(tmp_path, WEBHOOKS_SECURITY_SCHEME=KEY) as app:
        made = Customer(app.test_client()).subscribe()
        path = f"/webhooks/api/subscriptions/{made['id']}"

        without = app.test_client().patch(path, json={}, headers=browser)
        with_it = app.test_client().patch(path, json={}, headers={**browser, "X-Api-Key": "k"})

    assert without.get_json(force=True)["code"] == "cross_site"
    assert with_it.status_code == 200


def test_servers_follow_where_the_app_is_mounted(tmp_path: Path) -> None:
    with lasting(tmp_path) as app:
        headers = {"X-Owner": "1"}
        client = app.test_client()
        plain = client.get("/webhooks/api/openapi.json", headers=headers).get_json()
        mounted = client.get(
            "/webhooks/api/openapi.json", headers=headers, base_url="http://x/shop"
        ).get_json()
        app.wsgi_app = ProxyFix(app.wsgi_app, x_prefix=1)  # type: ignore[method-assign]
        proxied = client.get(
            "/webhooks/api/openapi.json", headers={**headers, "X-Forwarded-Prefix": "/a"}
        ).get_json()
        page = client.get("/webhooks/api/docs", headers={**headers, "X-Forwarded-Prefix": "/a"}).text

    assert plain["servers"] == [{"url": "/webhooks/api"}]
    assert mounted["servers"] == [{"url": "/shop/webhooks/api"}]
    assert proxied["servers"] == [{"url": "/a/webhooks/api"}]
    assert "<code>/a/webhooks/api</code>" in page


def test_the_page_of_the_description_may_do_nothing(shared: Customer) -> None:
    shared("GET", "/docs", expect=200)

    assert shared.last.headers["Content-Security-Policy"] == POLICY
    assert shared.last.headers["X-Frame-Options"] == "SAMEORIGIN"
    assert "<script" not in shared.last.text
    assert " style=" not in shared.last.text


@pytest.mark.parametrize("tag", ['W/"{}"', '"{}-gzip"', '"{}:gzip"', '"{}:br", "x"', "*"])
def test_what_is_known_already_is_known_packed_as_well(shared: Customer, tag: str) -> None:
    path = f"/subscriptions/{shared.subscribe()['id']}"
    shared("GET", path)

    shared("GET", path, if_none_match=tag.format(shared.last.headers["ETag"].strip('"')), expect=304)
    shared("GET", path, if_none_match='"9-gzip"', expect=200)
