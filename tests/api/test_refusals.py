"""Values that the API refuses: headers of proxies, guessable secrets, records that do not exist."""

from __future__ import annotations

import base64
import hashlib
import random
import time
import typing as t
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from flask_webhooks import Principal, Webhooks, checks, signing
from flask_webhooks.models import Subscription
from flask_webhooks.state import state_of
from flask_webhooks.subscriptions import headers
from tests.conftest import SERVERS, release
from tests.host import db, make_host, make_tables
from tests.receivers import Receiver

from .conftest import Customer, quick

RESERVED = """
    webhook_signature Webhook-Id WEBHOOK.EVENT X_Forwarded_For X-Forwarded-Host x.forwarded.proto Transfer_Encoding
    Content_Length Host HOST Connection Via Forwarded X-Real-IP X_Real_Ip X-Original-URL X-Original_Host X-Rewrite-URL
    Proxy-Authorization Proxy_Connection Sec-Fetch-Site Sec_WebSocket_Key True-Client-IP Client-IP X-Client-IP
    X-Cluster-Client-IP CF-Connecting-IP Fastly-Client-IP X-Envoy-External-Address X-HTTP-Method-Override
    X-Method-Override Remote-User REMOTE_ADDR X-Remote-User Front-End-Https X-Accel-Redirect X-Amzn-Oidc-Identity
    X-Auth-Request-Email X-SSL-Client-Cert SSL_CLIENT_VERIFY X-ProxyUser-Ip WL-Proxy-Client-IP User_Agent Cookie
    Proxy X-Forwarded Forwarded-For Forwarded_Proto Fly-Client-IP DO-Connecting-IP CDN-Loop Remote-Groups X-WebAuth-User
    X-Middleware-Subrequest X-AppEngine-Cron X-Vercel-Ip-Country Cf-Access-Jwt-Assertion Tailscale-User-Login
""".split()
TAKEN = """
    Authorization X-Api-Key X-Auth-Token CF-Access-Client-Id CF-Access-Client-Secret X-Goog-Api-Key X-Amz-Target
    Ocp-Apim-Subscription-Key X-Functions-Key X-Hub-Signature X-Forward X-Request-Id traceparent Api_Key X-Tenant
""".split()


@pytest.mark.parametrize("name", RESERVED)
def test_headers_of_ours_of_the_connection_and_of_proxies_are_refused(name: str) -> None:
    _, faults = headers.check({name: "1"}, 20)

    assert faults == [f"{name!r} cannot be set: it belongs to the connection or to the webhook itself."]


def test_headers_of_customers_are_taken() -> None:
    assert headers.check(dict.fromkeys(TAKEN, "1"), 20) == (dict.fromkeys(TAKEN, "1"), [])


@quick(200)
@given(
    name=st.sampled_from(RESERVED), signs=st.lists(st.sampled_from("-_."), max_size=6), upper=st.booleans()
)
def test_no_spelling_that_a_server_reads_alike_is_taken(name: str, signs: list[str], upper: bool) -> None:
    for sign in signs:
        at = next((at for at, letter in enumerate(name) if not letter.isalnum()), None)
        if at is not None:
            name = name[:at] + sign + name[at + 1 :]

    assert headers.check({name.upper() if upper else name.lower(): "1"}, 20)[1]


def test_two_names_that_a_server_reads_alike_are_one_name_twice() -> None:
    assert "twice" in headers.check({"X-Key": "1", "x_key": "2"}, 20)[1][0]


def test_a_header_that_an_older_version_took_can_be_removed_and_spelt_anew(app: Flask) -> None:
    call, state = Customer(app.test_client()), state_of(app)
    path = f"/subscriptions/{call.subscribe(headers={'X_Key': '1'})['id']}"
    with state.engine.begin() as connection:
        kept = state.vault.seal('{"X_Real_IP": "1", "X_Key": "1"}')
        connection.execute(sa.update(Subscription).values(headers=kept))

    call("PATCH", path, {"headers": {"X-Other": "1"}}, expect=422)
    made = call("PATCH", path, {"headers": {"X_Real_IP": None, "X_Key": None, "X-Key": "2"}}, expect=200)

    assert made["headers"] == ["X-Key"]


def b64(key: bytes) -> str:
    return base64.b64encode(key).decode()


GUESSED = {
    "one byte": bytes(24),
    "another byte": b"A" * 32,
    "two bytes": b"\x00\xff" * 16,
    "counting": bytes(range(24)),
    "counting down": bytes(range(64, 0, -1)),
    "by threes": bytes(range(0, 96, 3)),
    "a word": b"password" * 4,
    "a longer one": b"correct horse " * 3,
    "half of it twice": hashlib.sha256(b"x").digest()[:12] * 2,
    "mostly nothing": bytes(28) + b"\x01\x02\x03\x04",
}


@pytest.mark.parametrize("key", GUESSED.values(), ids=GUESSED)
@pytest.mark.parametrize("kind", ["v1", "v1a"])
def test_a_secret_that_is_not_random_is_refused(shared: Customer, key: bytes, kind: str) -> None:
    text = "whsec_" + b64(key) if kind == "v1" else "whsk_" + b64(key.ljust(32, key[:1])[:32])
    body = {"url": "http://127.0.0.1:5999/", "events": ["*"], "signature": kind, "secret": text}

    problem = shared("POST", "/subscriptions", body, expect=422)

    assert [each["field"] for each in problem["errors"]] == ["secret"]
    assert text not in str(problem)


def test_rotating_asks_the_same_of_a_secret(shared: Customer) -> None:
    path = f"/subscriptions/{shared.subscribe()['id']}/secret/rotate"

    problem = shared("POST", path, {"secret": "whsec_" + "QUFB" * 10}, expect=422)

    assert "not random enough" in problem["detail"]


@pytest.mark.parametrize("size", range(24, 65))
def test_random_secrets_are_taken_and_text_of_random_ones(size: int) -> None:
    dice = random.Random(size)
    for _ in range(50):
        raw = dice.randbytes(size)
        text = raw.hex()[:size].encode()
        assert not signing.is_guessable(signing.parse("whsec_" + b64(raw)))
        assert not signing.is_guessable(signing.parse("whsec_" + b64(text)))
    assert not signing.is_guessable(signing.generate("v1a"))


def test_500_misspelt_events_cost_little(shared: Customer) -> None:
    body = {"url": "http://127.0.0.1:5999/", "events": [f"invoises.creatd{number}" for number in range(500)]}
    began = time.process_time()

    problem = shared("POST", "/subscriptions", body, expect=422)

    assert time.process_time() - began < 0.5
    suggested = [each for each in problem["errors"] if "Did you mean" in each["message"]]
    assert [each["field"] for each in suggested] == [f"events.{number}" for number in range(5)]


@pytest.fixture
def narrow_url(empty_database_url: str) -> t.Iterator[str]:
    """A database, or a connection to it, whose character set lacks some characters."""
    url = sa.make_url(empty_database_url)
    if url.get_backend_name() == "mysql":
        yield url.update_query_dict({"charset": "utf8mb3"}).render_as_string(hide_password=False)
        return
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    name = f"{url.database}_latin"
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
        yield url.set(database=name).render_as_string(hide_password=False)
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("empty_database_url", SERVERS, indirect=True)
def test_a_text_that_the_database_cannot_keep_is_refused(narrow_url: str, tmp_path: Path) -> None:
    who = ["1"]
    hooks = Webhooks()
    hooks.principal_loader(lambda: Principal(who[0], {"read", "write"}))
    app = make_host(narrow_url, tmp_path, hooks)
    make_tables(app, db)
    call, body = Customer(app.test_client()), {"url": "http://127.0.0.1:5999/", "events": ["*"]}

    call("POST", "/subscriptions", {**body, "description": "\U0001f98a"}, expect=422)
    call("POST", "/subscriptions", {**body, "description": "Gr\u00fc\u00dfe"}, expect=201)
    who[0] = "\U0001f98a"
    call("POST", "/subscriptions", body, expect=422)
    for path in ("/subscriptions", "/messages", "/deliveries"):
        assert "characters" in call("GET", path, expect=422)["detail"]
    assert app.test_client().get("/webhooks/console/").status_code == 422
    with app.app_context():
        [finding] = checks.check_database(db.engine).findings
    assert "cannot represent every character" in finding.message
    release(app)


ENTITIES = ["4611686018427387904", "9223372036854775808", "-1", "9" * 30, "9" * 255, "²", "٣", "1_0", " 1", "1,2", ",",
            "x", "1e3", "0x10", "🎉"]  # fmt: skip


@pytest.mark.parametrize("entity", ENTITIES)
def test_a_record_that_cannot_be_is_none(app: Flask, inbox: Receiver, entity: str) -> None:
    call = Customer(app.test_client())
    path = f"/subscriptions/{call.subscribe(url=inbox.url())['id']}/test"

    problem: t.Any = call("POST", path, {"event": "invoices.created", "entity_id": entity}, expect=422)

    assert problem["errors"] == [{"field": "entity_id", "message": "There is no such record in invoices."}]
    assert inbox.requests == []
