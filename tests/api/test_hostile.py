"""Malformed and hostile requests: the answer is never a 500, and always names the field at fault."""

from __future__ import annotations

import itertools
import json
import threading
import typing as t

import pytest
from flask import Flask

from flask_webhooks.api.operations import OPERATIONS, Operation
from flask_webhooks.state import state_of
from flask_webhooks.subscriptions.secrets import MOST_SECRETS

from .conftest import URL, Customer
from .test_rights import filled, possessions

VALUES: list[t.Any] = [
    None, True, -1, 1.5, 1e308, 10**400, "", "x", "\x00", "\ud800", "🎉" * 50, "a" * 5000, [], [None], [[]], {},
    {"": ""}, {"a": {"b": [{}]}}, "9999-12-31T23:59:59-14:00", [{"event": "*", "includes": [None]}],
    [{"event": ["*"]}], {"X-A": None}, "whsec_!!!", ["*"] * 600,
]  # fmt: skip
RAW = [
    b"", b"null", b"[]", b'"x"', b"\xef\xbb\xbf{}", b"{}{}", b'{"url":' + b"9" * 5000 + b"}", b'{"x":' * 2000,
    '{"a": 1}'.encode("utf-16"), b'{"rate_limit": 1e400}', b"\x00", b'{"a": 1, "a": 2}',
]  # fmt: skip
KINDS = ["text/plain", "", ";;;", "multipart/form-data; boundary=x", "application/json; charset=nope"]
QUERIES = [
    "", "%00", "%ff", "%ed%a0%80", "-1", "9" * 30, "1e3", "a" * 3000, "2026-01-01", "0001-01-01T00:00:00%2B14:00",
    "9999-12-31T23:59:59.999999Z", "'%20OR%201=1--", "nope.*", "[]", "{key}", "{key}%0a", "{key}_{key}", "{key}_",
]  # fmt: skip
HEADERS = {
    "If-Match": ["*", '""', 'W/"1"', '"1","2"', '"-1"', '"' + "9" * 5000 + '"', ",", ""],
    "If-None-Match": ["*", "x", '"' * 50],
    "Idempotency-Key": ["", "k" * 256, "ä", "\t"],
    "Content-Length": ["-1", "abc", "9" * 30],
    "Origin": ["http://[", "null"],
    "Authorization": ["", "Basic ////"],
    "Range": ["bytes=9-1"],
    "Content-Encoding": ["gzip"],
}
Sent = tuple[str, dict[str, t.Any]]


def ids(value: str) -> list[str]:
    """An id in other spellings, and texts that are no id."""
    return [value.upper(), f"{{{value}}}", f"urn:uuid:{value}", value.replace("-", ""), f"{value}%0a", "%00", "🎉",
            "x" * 3000, "%2e%2e", "-1", f"{value}/"]  # fmt: skip


def requests(operation: Operation, mine: dict[str, str]) -> t.Iterator[Sent]:
    path = filled(operation.path, mine)
    if operation.writes:
        base = {"url": URL, "events": ["*"]} if operation.name == "create_subscription" else {}
        names = [*operation.body().fields, "nope"] if operation.body else ["nope"]
        yield from ((path, {"json": {**base, name: value}}) for name in names for value in VALUES)
        yield from ((path, {"data": raw, "content_type": "application/json"}) for raw in RAW)
        yield from ((path, {"data": b"{}", "content_type": kind}) for kind in KINDS)
    else:
        names = [*(operation.query().fields if operation.query else ()), "nope"]
        values = [value.format(key=mine["subscription_id"]) for value in QUERIES]
        yield from ((f"{path}?{name}={value}", {}) for name in names for value in values)
        yield from ((f"{path}?{one}=1&{two}=x", {}) for one, two in itertools.product(names, names))
    body = {"json": {}} if operation.writes else {}
    for name in operation.arguments:
        yield from ((filled(operation.path, {**mine, name: bad}), body) for bad in ids(mine[name]))
    for name, headers in HEADERS.items():
        yield from ((path, {**body, "headers": {name: value}}) for value in headers)


def keeps_the_law(answer: t.Any) -> None:
    assert answer.status_code < 500, answer.data
    if answer.status_code < 400:
        return
    assert answer.mimetype == "application/problem+json"
    problem = json.loads(answer.data)
    assert problem["status"] == answer.status_code
    assert problem["detail"]
    assert answer.status_code != 422 or problem["errors"]
    assert len(answer.data) < 100_000


@pytest.mark.parametrize(
    "operation",
    [each for each in OPERATIONS if each.method != "DELETE"],
    ids=lambda operation: operation.name,
)
def test_nothing_breaks_a_route(shared_app: Flask, document: t.Any, operation: Operation) -> None:
    client = shared_app.test_client()
    responses = document["paths"][operation.openapi_path][operation.method.lower()]["responses"]
    elsewhere = {
        "400",
        "405",
    }  # of HTTP itself: a path that is another route's, a header that no server lets through
    mine = possessions(state_of(shared_app), Customer(client))

    for path, sent in requests(operation, mine):
        headers = {"X-Owner": "1", **sent.get("headers", {})}
        answer = client.open(f"/webhooks/api{path}", method=operation.method, **{**sent, "headers": headers})
        try:
            keeps_the_law(answer)
            assert str(answer.status_code) in responses.keys() | elsewhere
        except AssertionError as error:
            raise AssertionError(f"{operation.method} {path[:100]} {str(sent)[:200]}: {error}") from None


@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "TRACE"])
def test_no_path_below_the_api_is_the_hosts(shared: Customer, method: str) -> None:
    for path in ("", "/", "/nothing", "/subscriptions/", "/%00", "/catalog/a%2fb", "/" + "a" * 9000):
        shared(method, path)
        assert shared.last.status_code in (404, 405), (method, path)
        keeps_the_law(shared.last)


def test_much_that_is_wrong_takes_no_time_and_no_room(shared: Customer) -> None:
    names = [f"invoice{number}" for number in range(9_000)]
    for body, field in (
        ({"events": names}, "events"),
        ({"events": [{"event": "*", "includes": names}]}, "events.0.includes"),
        ({"channels": names}, "events"),
        ({"events": ["*"], "headers": dict.fromkeys(names, " ")}, "headers"),
        ({"events": ["*"], "metadata": dict.fromkeys(names, "x")}, "metadata"),
    ):
        problem = shared("POST", "/subscriptions", {"url": URL, **body}, expect=422)
        assert {each["field"] for each in problem["errors"]} == {field}
        assert len(shared.last.data) < 100_000
    shared("POST", "/subscriptions", dict.fromkeys(names, 1), expect=422)
    assert len(shared.last.data) < 100_000


def test_a_version_is_asked_for_on_reading_too(shared: Customer) -> None:
    path = f"/subscriptions/{shared.subscribe()['id']}"
    shared("GET", path, expect=200)

    shared("GET", path, expect=200, if_match=shared.last.headers["ETag"])
    assert shared("GET", path, expect=412, if_match='"9"')["code"] == "changed"


def test_a_subscription_that_is_gone_is_nowhere(shared: Customer) -> None:
    path = f"/subscriptions/{shared.subscribe()['id']}"
    shared("DELETE", path, {}, expect=204)

    for operation in OPERATIONS:
        if operation.path.startswith("/subscriptions/<"):
            gone = path + operation.path.partition(">")[2]
            shared(operation.method, gone, {} if operation.writes else None, expect=404)


def test_another_owners_cursor_shows_none_of_their_rows(app: Flask, call: Customer, other: Customer) -> None:
    theirs = [other.subscribe()["id"] for _ in range(3)]
    mine = call.subscribe()["id"]
    cursor = other("GET", "/subscriptions?limit=1")["next"]

    assert cursor in theirs
    assert call("GET", f"/subscriptions?cursor={cursor}", expect=200)["items"] == []
    last = "ffffffff-ffff-7fff-bfff-ffffffffffff"
    assert [row["id"] for row in call("GET", f"/subscriptions?cursor={last}")["items"]] == [mine]
    for path in ("/messages", "/deliveries"):
        assert call("GET", f"{path}?cursor={last}", expect=200) == {"items": [], "next": None}


# ---- at the same moment ----------------------------------------------------------------------------------


def together(app: Flask, *requests: tuple[str, str, t.Any, dict[str, str]]) -> list[t.Any]:
    """Send requests of owner 1 at the same moment; return the responses."""
    barrier, answers = threading.Barrier(len(requests)), []

    def send(method: str, path: str, body: t.Any, headers: dict[str, str]) -> None:
        call = Customer(app.test_client())
        barrier.wait(20)
        call(method, path, body, **headers)
        answers.append(call.last)

    threads = [threading.Thread(target=send, args=request) for request in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == len(requests)
    for answer in answers:
        keeps_the_law(answer)
    return answers


@pytest.fixture
def crowded(make_app: t.Callable[..., Flask]) -> Flask:
    return make_app(SQLALCHEMY_ENGINE_OPTIONS={"pool_size": 12, "pool_timeout": 60})


def test_of_changes_that_saw_the_same_version_one_wins(crowded: Flask) -> None:
    call = Customer(crowded.test_client())
    path = f"/subscriptions/{call.subscribe()['id']}"
    call("GET", path)
    seen = {"if_match": call.last.headers["ETag"]}

    answers = together(crowded, *[("PATCH", path, {"description": str(n)}, seen) for n in range(6)])

    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 5
    [won] = [answer.get_json() for answer in answers if answer.status_code == 200]
    assert call("GET", path)["description"] == won["description"]


def test_rotations_at_the_same_moment_leave_every_secret_in_force(crowded: Flask) -> None:
    call = Customer(crowded.test_client())
    made = call.subscribe()
    path = f"/subscriptions/{made['id']}/secret"

    answers = together(crowded, *[("POST", f"{path}/rotate", {}, {}) for _ in range(4)])

    assert {answer.status_code for answer in answers} == {200}
    secrets = {made["secret"]} | {answer.get_json()["secret"] for answer in answers}
    kept = call("GET", path, expect=200)["secrets"]
    assert {each["secret"] for each in kept} == secrets
    assert [each["expires_at"] is None for each in kept] == [True] + [False] * 4
    for _ in range(MOST_SECRETS - len(secrets)):
        call("POST", f"{path}/rotate", {}, expect=200)
    call("POST", f"{path}/rotate", {}, expect=422)  # no more until one has run out
    call("POST", f"{path}/rotate", {"overlap": 0}, expect=200)


def test_removal_against_everything_else(crowded: Flask) -> None:
    call = Customer(crowded.test_client())
    path = f"/subscriptions/{call.subscribe()['id']}"

    answers = together(
        crowded,
        ("DELETE", path, {}, {}),
        ("PATCH", path, {"events": ["clients.*"]}, {}),
        ("POST", f"{path}/secret/rotate", {}, {}),
        ("POST", f"{path}/replay", {"mode": "all"}, {}),
        ("POST", f"{path}/test", {}, {}),
        ("DELETE", path, {}, {}),
    )

    assert {answer.status_code for answer in answers} <= {200, 202, 204, 404}
    assert [answer.status_code for answer in answers].count(204) == 1
    call("GET", path, expect=404)


def test_one_key_for_two_different_requests_at_the_same_moment(crowded: Flask) -> None:
    bodies = [{"url": URL, "events": ["*"], "description": str(number)} for number in range(4)]

    answers = together(
        crowded, *[("POST", "/subscriptions", body, {"idempotency_key": "k"}) for body in bodies]
    )

    assert sorted(answer.status_code for answer in answers) == [201, 422, 422, 422]
    call = Customer(crowded.test_client())
    assert len(call("GET", "/subscriptions")["items"]) == 1
