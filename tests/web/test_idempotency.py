"""A request that is repeated with its `Idempotency-Key` has no second effect."""

from __future__ import annotations

import threading
import typing as t
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from flask import Flask

from flask_webhooks.models import IdempotentReply
from flask_webhooks.state import AppState, state_of
from tests.api.conftest import URL, Customer
from tests.console.conftest import on_one_database, write_log
from tests.receivers import Receiver, ok
from tests.stage import wait_until
from tests.worker.answers import Gate

BODY = {"url": URL, "events": ["invoices.*"]}


def keys(state: AppState) -> int:
    with state.engine.connect() as connection:
        return connection.scalar(sa.select(sa.func.count()).select_from(IdempotentReply)) or 0


def in_background(work: t.Callable[[], t.Any]) -> t.Callable[[], t.Any]:
    pool = ThreadPoolExecutor(1)
    future = pool.submit(work)
    pool.shutdown(wait=False)
    return lambda: future.result(20)


def test_a_second_test_under_way_is_refused_and_later_answered_alike(app: Flask, call: Customer) -> None:
    gate = Gate()
    with Receiver(gate) as receiver:
        path = f"/subscriptions/{call.subscribe(url=receiver.url())['id']}/test"
        other = Customer(app.test_client())
        first = in_background(lambda: other("POST", path, {}, expect=200, idempotency_key="k"))
        wait_until(lambda: gate.held)

        call("POST", path, {}, expect=409, idempotency_key="k")
        gate.opened.set()
        answer = first()

        assert call("POST", path, {}, expect=200, idempotency_key="k") == answer
        assert len(receiver.requests) == 1


def kept(state: AppState) -> list[str]:
    with state.engine.connect() as connection:
        return list(connection.scalars(sa.select(IdempotentReply.sealed)))


@on_one_database
def test_200_tests_with_keys_keep_ids_and_no_answers(make_app: t.Callable[..., Flask]) -> None:
    app = make_app(WEBHOOKS_MANUAL_RATE=100_000)
    call = Customer(app.test_client())
    with Receiver(ok(b"\xff" * 16_384, 200, {"X-Long": "\xe9" * 4_000})) as receiver:
        path = f"/subscriptions/{call.subscribe(url=receiver.url())['id']}/test"
        for number in range(200):
            call("POST", path, {}, expect=200, idempotency_key=f"k{number}")

    texts = kept(state_of(app))
    assert len(texts) == 200
    assert max(map(len, texts)) < 100


def test_keys_of_one_owner_are_limited(make_app: t.Callable[..., Flask]) -> None:
    app = make_app(WEBHOOKS_KEY_LIMIT=3)
    call, other = Customer(app.test_client()), Customer(app.test_client(), "2")
    made = [call("POST", "/subscriptions", BODY, expect=201, idempotency_key=f"k{n}")["id"] for n in range(3)]

    call("POST", "/subscriptions", BODY, expect=429, idempotency_key="k3")

    assert 86_000 < int(call.last.headers["Retry-After"]) <= 86_400
    assert call("POST", "/subscriptions", BODY, expect=201, idempotency_key="k0")["id"] == made[0]
    call("POST", "/subscriptions", BODY, expect=201)
    other("POST", "/subscriptions", BODY, expect=201, idempotency_key="k3")
    with state_of(app).engine.begin() as connection:
        day_ago = datetime.now(UTC) - timedelta(hours=24, seconds=1)
        connection.execute(sa.update(IdempotentReply).values(created_at=day_ago))
    call("POST", "/subscriptions", BODY, expect=201, idempotency_key="k3")


@pytest.mark.parametrize("place", ["/subscriptions", "/subscriptions/{id}/test"])
def test_keys_are_limited_for_requests_that_come_together(
    make_app: t.Callable[..., Flask], place: str
) -> None:
    """All requests count the keys before any stores one: at the end if it creates, first if it sends."""
    app = make_app(WEBHOOKS_KEY_LIMIT=3, WEBHOOKS_MANUAL_CONCURRENCY=20)
    body = BODY if place == "/subscriptions" else {}
    path = place.format(id=Customer(app.test_client()).subscribe()["id"])
    barrier, counted = threading.Barrier(5), threading.local()

    def meet(_: t.Any, __: t.Any, statement: str, *___: t.Any) -> None:
        if "count(" in statement and "webhook_replies" in statement and not vars(counted):
            counted.is_met = True
            barrier.wait(20)

    def send(number: int) -> int:
        headers = {"X-Owner": "1", "Idempotency-Key": f"k{number}"}
        return app.test_client().post(f"/webhooks/api{path}", json=body, headers=headers).status_code

    engine = state_of(app).own_engine
    sa.event.listen(engine, "after_cursor_execute", meet)
    try:
        with ThreadPoolExecutor(5) as pool:
            statuses = list(pool.map(send, range(5)))
    finally:
        sa.event.remove(engine, "after_cursor_execute", meet)

    assert statuses.count(429) == 2
    assert keys(state_of(app)) == 3


def test_what_was_made_is_shown_with_its_current_values_and_nothing_is_done_twice(
    state: AppState, call: Customer
) -> None:
    first = call("POST", "/subscriptions", BODY, expect=201, idempotency_key="a")
    tag = call.last.headers["ETag"]
    path = f"/subscriptions/{first['id']}"
    assert call("POST", "/subscriptions", BODY, expect=201, idempotency_key="a") == first
    assert (call.last.headers["ETag"], call.last.headers["Cache-Control"]) == (tag, "no-store")
    call("PATCH", path, {"description": "later"}, expect=200)
    rotated = call("POST", f"{path}/secret/rotate", {"overlap": 60}, expect=200, idempotency_key="b")

    again = call("POST", "/subscriptions", BODY, expect=201, idempotency_key="a")
    assert (again["secret"], again["description"]) == (first["secret"], "later")
    assert call("POST", f"{path}/secret/rotate", {"overlap": 60}, expect=200, idempotency_key="b") == rotated
    call("POST", f"{path}/secret/rotate", {"overlap": 0}, expect=200)
    assert (
        "no longer valid" in call("POST", "/subscriptions", BODY, expect=409, idempotency_key="a")["detail"]
    )
    call("DELETE", path, expect=204)
    assert "removed since" in call("POST", "/subscriptions", BODY, expect=409, idempotency_key="a")["detail"]
    assert not any(first["secret"] in text or "http" in text for text in kept(state))


def test_every_post_is_repeated_alike(app: Flask, state: AppState, call: Customer) -> None:
    log = write_log(state)
    base, key = f"/subscriptions/{log.subscription.id}", log.deliveries["held"]
    posts = [
        (f"/deliveries/{log.deliveries['failed']}/retry", None, 202),
        (f"/deliveries/{key}/cancel", None, 200),
        (f"/replays/{log.replay}/cancel", None, 200),
        (f"{base}/replay", {"mode": "all"}, 202),
    ]
    for number, (path, body, status) in enumerate(posts):
        first = call("POST", path, body, expect=status, idempotency_key=f"k{number}")
        assert "Idempotency-Replayed" not in call.last.headers
        assert call("POST", path, body, expect=status, idempotency_key=f"k{number}") == first
        assert call.last.headers["Idempotency-Replayed"] == "true"
    call("POST", f"{base}/replay", {"mode": "all", "dry_run": True}, expect=200, idempotency_key="dry")
    assert keys(state) == len(posts)  # a count does nothing that could be done twice


def test_an_answer_that_an_older_version_sealed_is_still_given(state: AppState, call: Customer) -> None:
    call("POST", "/subscriptions", BODY, expect=201, idempotency_key="k")
    old = state.vault.seal('[{"ETag": "\\"7\\""}, "{\\"id\\": 1}"]')
    with state.engine.begin() as connection:
        connection.execute(sa.update(IdempotentReply).values(sealed=old))

    assert call("POST", "/subscriptions", BODY, expect=201, idempotency_key="k") == {"id": 1}
    assert call.last.headers["ETag"] == '"7"'


def test_a_secret_that_was_copied_into_a_kept_answer_is_never_shown(state: AppState, call: Customer) -> None:
    """An attacker who can write the database must not make the API decrypt custom headers or secrets."""
    call("POST", "/subscriptions", BODY, expect=201, idempotency_key="k")
    for place in ("secret/1", "headers/1"):
        stolen = state.vault.seal('[{"ETag": "sesame"}, "{\\"id\\": \\"sesame\\"}"]', place)
        with state.engine.begin() as connection:
            connection.execute(sa.update(IdempotentReply).values(sealed=stolen))

        call("POST", "/subscriptions", BODY, expect=500, idempotency_key="k")
        assert b"sesame" not in call.last.data


def test_a_key_is_free_again_when_the_request_was_refused(state: AppState, call: Customer) -> None:
    path = f"/subscriptions/{call.subscribe()['id']}/test"

    call("POST", path, {"event": "nothing.at_all"}, expect=422, idempotency_key="k")

    assert keys(state) == 0
    call("POST", path, {}, expect=200, idempotency_key="k")
    assert keys(state) == 1


def test_a_key_whose_process_died_is_free_after_a_while(state: AppState, call: Customer) -> None:
    path = f"/subscriptions/{call.subscribe(url=URL)['id']}/test"
    first = call("POST", path, {}, expect=200, idempotency_key="k")
    left = {"status": 0, "sealed": "", "created_at": datetime.now(UTC) - timedelta(minutes=4)}

    def leave(**values: t.Any) -> None:
        with state.engine.begin() as connection:
            connection.execute(sa.update(IdempotentReply).values({**left, **values}))

    leave()
    call("POST", path, {}, expect=409, idempotency_key="k")
    leave(created_at=datetime.now(UTC) - timedelta(minutes=6))

    assert call("POST", path, {}, expect=200, idempotency_key="k")["id"] != first["id"]
