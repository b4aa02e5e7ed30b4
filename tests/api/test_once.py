"""`Idempotency-Key` on what cannot be undone: a test request goes out once."""

from __future__ import annotations

import typing as t
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from flask import Flask

from flask_webhooks.models import IdempotentReply
from flask_webhooks.state import AppState
from tests.delivering.answers import Gate
from tests.receivers import Receiver
from tests.stage import wait_until

from .conftest import URL, Customer


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
