"""The API accepts a value exactly as given or refuses it: wrong types, duplicates and sizes are never corrected."""

from __future__ import annotations

import json
import typing as t

import pytest

from flask_webhooks.api.operations import OPERATIONS

from .conftest import URL, Customer

LONG = "a" * 200_000


def raw(call: Customer, method: str, path: str, body: str) -> t.Any:
    """Send a body as it is written."""
    return call.client.open(
        f"/webhooks/api{path}",
        method=method,
        data=body,
        headers=call.headers,
        content_type="application/json",
    )


@pytest.fixture(scope="module")
def path(shared_app: t.Any) -> str:
    return f"/subscriptions/{Customer(shared_app.test_client()).subscribe()['id']}"


@pytest.mark.parametrize(
    "body",
    [
        '{"active": 1}', '{"active": "true"}', '{"active": null}', '{"rate_limit": "5"}', '{"rate_limit": true}',
        '{"rate_limit": 1e400}', '{"rate_limit": 0}', '{"retry": [true]}', '{"retry": ["5"]}', '{"retry": [1e400]}',
        '{"description": 5}', '{"url": ["https://example.com/"]}', '{"metadata": []}', '{"metadata": {"a": 1e400}}',
        '{"metadata": {"\\ud800": 1}}', '{"metadata": {"a": "\\ud800"}}', '{"metadata": {"\\u0000": 1}}',
        '{"headers": {"X-A": 1}}', '{"headers": {"X-A": "a\\r\\nHost: b"}}', '{"headers": {"X-A": "a\\u0000"}}',
        '{"headers": {"X-A\\n": "a"}}', '{"owner": "2"}', '{"id": "x"}', '{"version": 1}', '{"signature": "none"}',
    ],
)  # fmt: skip
def test_what_is_nearly_right_is_refused(shared: Customer, path: str, body: str) -> None:
    before = shared("GET", path, expect=200)

    answer = raw(shared, "PATCH", path, body)

    assert answer.status_code == 422, answer.data
    [field] = {each["field"].partition(".")[0] for each in answer.get_json(force=True)["errors"]}
    assert field in json.loads(body)
    assert shared("GET", path) == before


@pytest.mark.parametrize("value", ["5.0", "5.5", '"5"', "true", "1e3", "-1", "604801"])
def test_an_overlap_is_a_whole_number(shared: Customer, path: str, value: str) -> None:
    assert raw(shared, "POST", f"{path}/secret/rotate", f'{{"overlap": {value}}}').status_code == 422


@pytest.mark.parametrize("value", ["1", "0", '"yes"', "null"])
def test_a_dry_run_is_true_or_false(shared: Customer, path: str, value: str) -> None:
    assert raw(shared, "POST", f"{path}/replay", f'{{"dry_run": {value}}}').status_code == 422


@pytest.mark.parametrize("limit", ["1_0", "%205", "+5", "5.0", "0x5", "1e3", "%D9%A3", "true", "", "0", "-1"])
def test_a_limit_is_digits(shared: Customer, limit: str) -> None:
    shared("GET", f"/subscriptions?limit={limit}", expect=422)


@pytest.mark.parametrize("place", ["/subscriptions", "/messages", "/deliveries"])
def test_a_parameter_is_given_once(shared: Customer, place: str) -> None:
    for query in ("owner=1&owner=2", "limit=1&limit=2"):
        problem = shared("GET", f"{place}?{query}", expect=422)
        assert problem["errors"][0]["field"] == query.partition("=")[0]


@pytest.mark.parametrize(("tag", "is_it"), [
    ('"{}"', True), ("*", True), ('W/"{}"', True), ('"{}:gzip"', True), ('"{}:br"', True),
    ('"{}-gzip"', True), ('W/"{}-gzip"', True), ('"{}--gzip"', True), ('"{}-gz"', False),
    ('"{}-gzip-gzip"', False), ('"0{}"', False), ('"+{}"', False), ('"{}', False), ('""', False),
    ('"{}.0"', False), ('"-1"', False),
])  # fmt: skip
def test_a_version_is_asked_for_exactly(shared: Customer, path: str, tag: str, is_it: bool) -> None:
    shared("GET", path)
    version = shared.last.headers["ETag"].strip('"')

    problem = shared("PATCH", path, {}, if_match=tag.format(version), expect=200 if is_it else 412)
    if not is_it:
        assert version in problem["detail"]
        assert "-1" not in problem["detail"]


@pytest.mark.parametrize("depth", [20, 21, 90, 400, 900, 990, 5000, 60_000])
def test_metadata_is_not_nested_without_end(shared: Customer, path: str, depth: int) -> None:
    nested = '{"a":' * depth + "1" + "}" * depth

    status = raw(shared, "PATCH", path, f'{{"metadata": {nested}}}').status_code

    assert status == 200 if depth == 20 else status in (400, 413, 422)


def test_an_answer_is_small_whatever_was_sent(shared: Customer, path: str) -> None:
    for operation in OPERATIONS:
        if operation.body is None:
            continue
        base = {"url": URL, "events": ["*"]} if operation.name == "create_subscription" else {}
        place = operation.path.replace("/subscriptions/<subscription_id>", path)
        for name in [*operation.body().load_fields, LONG]:
            for value in (LONG, [LONG], {LONG: LONG}, [{"event": "*", "includes": [LONG]}]):
                shared(operation.method, place, {**base, name: value})
                assert shared.last.status_code in (413, 422), (
                    operation.name,
                    name[:20],
                    shared.last.data[:300],
                )
                assert len(shared.last.data) < 5000, (operation.name, name[:20])


def test_answers_with_a_secret_are_not_cached(shared: Customer, path: str) -> None:
    shared.subscribe()
    assert shared.last.headers["Cache-Control"] == "no-store"
    shared("GET", f"{path}/secret", expect=200)
    assert shared.last.headers["Cache-Control"] == "no-store"


def test_a_key_is_of_one_owner_and_one_request(shared: Customer, shared_app: t.Any, path: str) -> None:
    other = Customer(shared_app.test_client(), "2")
    body = {"url": URL, "events": ["*"]}
    first = shared("POST", "/subscriptions", body, expect=201, idempotency_key="one")

    assert other("POST", "/subscriptions", body, expect=201, idempotency_key="one")["id"] != first["id"]
    for place, sent in (
        (f"{path}/secret/rotate", {}),
        (f"{path}/test", {}),
        ("/subscriptions", {**body, "active": True}),
    ):
        assert shared("POST", place, sent, expect=422, idempotency_key="one")["code"] == "key_reused"
    assert shared("POST", "/subscriptions", body, expect=201, idempotency_key="one") == first
    assert "Idempotency-Replayed" in shared.last.headers
    other("POST", f"{path}/secret/rotate", {}, expect=404, idempotency_key="one-more")
    assert shared("GET", f"{path}/secret", expect=200)["secrets"][1:] == []
