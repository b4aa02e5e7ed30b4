"""Subscriptions in the API: create, list, read, change, remove."""

from __future__ import annotations

import threading
import typing as t

import pytest
import sqlalchemy as sa
from flask import Flask
from flask.testing import FlaskClient

from flask_webhooks.state import AppState, state_of

from .conftest import URL, Customer


def test_a_subscription_has_the_documented_shape(shared: Customer) -> None:
    made = shared.subscribe(
        "invoices.updated", channels=["clients"], headers={"X-Key": "sesame"}, metadata={"a": 1}
    )
    secret = made.pop("secret")

    assert set(made) == {
        "id", "url", "description", "environment", "active", "format", "events", "channels", "headers", "retry",
        "rate_limit", "metadata", "signature", "disabled_reason", "disabled_at", "created_at", "updated_at",
        "note",
    }  # fmt: skip
    assert made["channels"] == ["clients"]
    assert made["headers"] == ["X-Key"]
    assert made["events"] == [
        {"event": "clients.*", "includes": []},
        {"event": "invoices.updated", "includes": []},
    ]
    assert shared("GET", f"/subscriptions/{made['id']}", expect=200) == made
    assert secret.startswith("whsec_")


def test_one_that_gets_nothing_from_this_app_says_so(call: Customer) -> None:
    note = "Events of this application are for staging: a subscription for production gets none of them."
    other = call.subscribe("invoices.*", environment="production")

    assert (call.subscribe("invoices.*")["note"], other["note"]) == (None, note)
    assert call("GET", f"/subscriptions/{other['id']}", expect=200)["note"] == note


def test_other_systems_names_are_understood(shared: Customer) -> None:
    made = shared("POST", "/subscriptions", {"to_url": URL, "event_types": ["invoices.paid"]}, expect=201)

    assert (made["url"], made["events"]) == (URL, [{"event": "invoices.paid", "includes": []}])
    shared("POST", "/subscriptions", {"to_url": URL, "url": URL, "events": ["*"]}, expect=422)


def test_nothing_secret_is_shown_again(call: Customer, caplog: pytest.LogCaptureFixture) -> None:
    secret = call.subscribe("invoices.*", headers={"Authorization": "Bearer sesame"})["secret"]
    for path in ("/subscriptions", "/messages", "/deliveries", "/openapi.json", "/docs"):
        call("GET", path, expect=200)
        text = call.last.get_data(as_text=True)
        assert secret not in text
        assert "sesame" not in text
    assert secret not in caplog.text
    assert "sesame" not in caplog.text


def test_wrong_types_and_wrong_values_are_reported_together(shared: Customer) -> None:
    problem = shared(
        "POST",
        "/subscriptions",
        {"url": "https://10.0.0.1", "events": ["invoice.created"], "rate_limit": "fast", "colour": "red"},
        expect=422,
    )

    assert shared.last.mimetype == "application/problem+json"
    assert {each["field"] for each in problem["errors"]} == {"url", "events.0", "rate_limit", "colour"}
    assert problem["status"] == 422


def test_exclusive_channels_conflict(shared: Customer) -> None:
    problem = shared(
        "POST", "/subscriptions", {"url": URL, "events": ["ledgers.*", "invoices.*"]}, expect=409
    )

    assert problem["code"] == "exclusive"
    assert "ledgers" in problem["detail"]
    assert "invoices" in problem["detail"]


@pytest.mark.parametrize(
    ("data", "kind", "status"),
    [
        (b"{", "application/json", 400),
        (b'{"rate_limit": NaN}', "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b'"text"', "application/json", 422),
        (b"url=x", "application/x-www-form-urlencoded", 415),
        (b'{"description": "' + b"x" * 300_000 + b'"}', "application/json", 413),
        (b"\xff\xfe", "application/json", 400),
        (b'{"description": "\\ud800", "url": "x", "events": []}', "application/json", 422),
        (b'{"metadata": {"a": "\\u0000"}, "url": "x", "events": []}', "application/json", 422),
        (b'{"retry": 1e999, "url": "x"}', "application/json", 422),
    ],
    ids=[
        "cut off",
        "NaN",
        "deep",
        "no object",
        "a form",
        "too large",
        "no text",
        "half a pair",
        "NUL",
        "infinite",
    ],
)
def test_what_is_no_request_is_refused(shared_app: Flask, data: bytes, kind: str, status: int) -> None:
    answer = shared_app.test_client().post(
        "/webhooks/api/subscriptions", data=data, headers={"X-Owner": "1", "Content-Type": kind}
    )

    assert answer.status_code == status, answer.data
    assert answer.mimetype == "application/problem+json"


def test_a_version_that_was_seen_is_asked_for(call: Customer) -> None:
    path = f"/subscriptions/{call.subscribe()['id']}"
    call("GET", path)
    seen = call.last.headers["ETag"]
    call("PATCH", path, {"description": "first"}, expect=200, if_match=seen)

    call("PATCH", path, {"description": "second"}, expect=412, if_match=seen)
    call("DELETE", path, {}, expect=412, if_match=seen)
    call("DELETE", path, {}, expect=412, if_match='"soon"')
    assert call("GET", path)["description"] == "first"
    call("DELETE", path, {}, expect=204, if_match=f'"{int(seen[1:-1]) + 1}"')
    call("GET", path, expect=404)


def test_what_has_not_changed_is_not_sent_again(shared: Customer) -> None:
    path = f"/subscriptions/{shared.subscribe()['id']}"
    shared("GET", path)

    shared("GET", path, expect=304, if_none_match=shared.last.headers["ETag"])


def count(state: AppState) -> int:
    with state.engine.connect() as connection:
        return connection.scalar(sa.text("SELECT count(*) FROM webhook_subscriptions")) or 0


def test_a_repeated_post_is_answered_as_the_first(call: Customer, other: Customer, state: AppState) -> None:
    body = {"url": URL, "events": ["invoices.*"]}
    first = call("POST", "/subscriptions", body, expect=201, idempotency_key="k")
    second = call("POST", "/subscriptions", body, expect=201, idempotency_key="k")

    assert second == first
    assert call.last.headers["Idempotency-Replayed"] == "true"
    assert count(state) == 1
    call("POST", "/subscriptions", {**body, "description": "x"}, expect=422, idempotency_key="k")
    assert other("POST", "/subscriptions", body, expect=201, idempotency_key="k")["id"] != first["id"]
    with state.engine.connect() as connection:
        kept = connection.execute(sa.text("SELECT * FROM webhook_replies")).all()
    assert first["secret"] not in str(kept)


def test_a_refused_post_may_be_mended_under_its_key(shared: Customer) -> None:
    shared("POST", "/subscriptions", {"url": URL, "events": ["nope.x"]}, expect=422, idempotency_key="k")

    shared("POST", "/subscriptions", {"url": URL, "events": ["invoices.*"]}, expect=201, idempotency_key="k")


def test_ten_posts_with_one_key_make_one(make_app: t.Callable[..., Flask]) -> None:
    app = make_app(SQLALCHEMY_ENGINE_OPTIONS={"pool_size": 12, "pool_timeout": 60})
    barrier, answers = threading.Barrier(10), []

    def post(client: FlaskClient) -> None:
        barrier.wait()
        call = Customer(client)
        answers.append(
            call("POST", "/subscriptions", {"url": URL, "events": ["*"]}, expect=201, idempotency_key="k")
        )

    threads = [threading.Thread(target=post, args=(app.test_client(),)) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(answers) == 10
    assert all(answer == answers[0] for answer in answers)
    assert count(state_of(app)) == 1


def test_pages_are_stable_while_rows_arrive(call: Customer) -> None:
    made = [call.subscribe()["id"] for _ in range(5)]
    first = call("GET", "/subscriptions?limit=2", expect=200)
    call.subscribe()

    second = call("GET", f"/subscriptions?limit=2&cursor={first['next']}", expect=200)
    third = call("GET", f"/subscriptions?limit=2&cursor={second['next']}", expect=200)

    seen = [each["id"] for page in (first, second, third) for each in page["items"]]
    assert seen == made[::-1]
    assert third["next"] is None


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=x", "cursor=1", "cursor=%00", "colour=red", "active=perhaps"]
)
def test_a_query_is_checked(shared: Customer, query: str) -> None:
    problem = shared("GET", f"/subscriptions?{query}", expect=422)

    assert problem["errors"][0]["field"] == query.partition("=")[0]


def test_the_limit_of_a_page_is_a_setting(make_app: t.Callable[..., Flask]) -> None:
    call = Customer(make_app(WEBHOOKS_PAGE_LIMIT=2).test_client())
    for _ in range(3):
        call.subscribe()

    assert len(call("GET", "/subscriptions?limit=1000")["items"]) == 2


def test_limits_answer_4xx(make_app: t.Callable[..., Flask]) -> None:
    call = Customer(
        make_app(
            WEBHOOKS_SUBSCRIPTION_LIMIT=1,
            WEBHOOKS_LISTENER_LIMIT=2,
            WEBHOOKS_HEADER_LIMIT=1,
            WEBHOOKS_URL_LIMIT=40,
            WEBHOOKS_METADATA_LIMIT=20,
            WEBHOOKS_BODY_LIMIT=1000,
        ).test_client()
    )
    base = {"url": URL, "events": ["*"]}
    many = ["invoices.created", "invoices.updated", "invoices.deleted"]

    for field, value in (
        ("events", many),
        ("headers", {"X-A": "1", "X-B": "2"}),
        ("url", "http://127.0.0.1:5999/" + "x" * 40),
        ("metadata", {"a": "x" * 40}),
    ):
        problem = call("POST", "/subscriptions", {**base, field: value}, expect=422)
        assert [each["field"] for each in problem["errors"]] == [field]
    call("POST", "/subscriptions", {**base, "description": "x" * 1000}, expect=413)
    call("POST", "/subscriptions", base, expect=201)
    assert "limit" in call("POST", "/subscriptions", base, expect=422)["detail"]


def test_unknown_paths_and_methods_are_problems(shared: Customer) -> None:
    shared("GET", "/nothing", expect=404)
    assert shared.last.mimetype == "application/problem+json"
    shared("PUT", "/subscriptions", {}, expect=405)
    assert shared.last.headers["Allow"] == "GET, HEAD, OPTIONS, POST"
    shared("GET", "/subscriptions/%00", expect=404)
    shared("GET", "/subscriptions/1' OR 1=1", expect=404)


@pytest.mark.parametrize("tag", ['""', '"x"', '"1", "2"', 'W/""'])
def test_a_tag_that_cannot_be_is_refused(shared: Customer, tag: str) -> None:
    made = shared.subscribe()

    shared("PATCH", f"/subscriptions/{made['id']}", {"description": "x"}, if_match=tag, expect=412)
