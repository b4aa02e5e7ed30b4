"""Test requests, URL checks, manual retries and replays share one limit for API and console."""

from __future__ import annotations

import itertools
import socket
import threading
import time
import typing as t
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session

from flask_webhooks.models import Delivery
from flask_webhooks.state import AppState, state_of
from tests.console.conftest import Visitor, load_principal, write_log
from tests.host import Invoice, Status
from tests.receivers import Receiver, Talk
from tests.stage import attempts, fill, recorded, subscribe, wait_until
from tests.worker.answers import Gate, run

from .conftest import Customer

pytestmark = pytest.mark.long


@pytest.fixture
def app(make_app: t.Callable[..., Flask]) -> Flask:
    from flask_webhooks import Webhooks

    hooks = Webhooks()
    hooks.principal_loader(load_principal)
    return make_app(webhooks=hooks)


def test_300_tests_through_both_doors_send_as_many_as_a_minute_may_have(
    app: Flask, state: AppState, inbox: Receiver
) -> None:
    row = subscribe(state, inbox.url(), "*")
    call, visitor = Customer(app.test_client()), Visitor(app)
    visitor.token()

    def through_the_api() -> int:
        call("POST", f"/subscriptions/{row.id}/test", {})
        return int(call.last.status_code)

    def through_the_console() -> int:
        return visitor.post(f"/webhooks/{row.id}/test", HX_Request="true").status_code

    began = time.monotonic()
    statuses = [
        door() for door in itertools.islice(itertools.cycle((through_the_api, through_the_console)), 300)
    ]
    most = 20 + (time.monotonic() - began) / 3

    assert set(statuses) == {200, 429}
    assert 20 <= len(inbox.requests) == statuses.count(200) <= most + 1
    assert 1 <= int(call.last.headers["Retry-After"]) <= 3
    assert call.last.mimetype == "application/problem+json"
    assert call.last.get_json()["code"] == "too_many_requests"


def test_every_way_to_have_something_sent_counts(app: Flask, state: AppState, inbox: Receiver) -> None:
    app_state = state_of(app)
    object.__setattr__(app_state.settings, "manual_rate", 7)
    log = write_log(state, inbox.url())
    call, visitor, other = Customer(app.test_client()), Visitor(app), Customer(app.test_client(), "2")
    base, failed = f"/subscriptions/{log.subscription.id}", log.deliveries["failed"]
    app_state.transport._names._resolver = lambda *_, **__: []

    call("POST", f"{base}/test", {}, expect=200)
    call("POST", f"/deliveries/{failed}/retry", expect=202)
    call("POST", f"{base}/replay", {"mode": "all"}, expect=409)  # one is running
    for path, form in (
        (f"/webhooks/{log.subscription.id}/test", {}),
        (f"/deliveries/{failed}/retry", {}),
        ("/probe", {"url": inbox.url()}),
        ("/check-url", {"url": "https://name.example.com/"}),
    ):
        assert visitor.post(path, form).status_code in (200, 303), path

    for path, body in ((f"{base}/test", {}), (f"/deliveries/{failed}/retry", None), (f"{base}/replay", {})):
        call("POST", path, body, expect=429)
    for path, form in (
        (f"/webhooks/{log.subscription.id}/test", {}),
        (f"/deliveries/{failed}/retry", {}),
        (f"/webhooks/{log.subscription.id}/replay", {}),
        ("/probe", {"url": inbox.url()}),
        ("/check-url", {"url": "https://name.example.com/"}),
    ):
        answer = visitor.post(path, form)
        assert answer.status_code == 429, path
        assert 0 < int(answer.headers["Retry-After"]) <= 9, path
    call("POST", f"{base}/replay", {"dry_run": True}, expect=200)  # sends nothing
    other("POST", f"{base}/test", {}, expect=404)


def test_six_tests_to_a_receiver_that_hangs_hold_one_thread_and_not_for_long(
    app: Flask, state: AppState
) -> None:
    object.__setattr__(state_of(app).settings, "manual_timeout", 1.0)
    gate = Gate()
    with Receiver(gate) as receiver, ThreadPoolExecutor(6) as pool:
        row = subscribe(state, receiver.url(), "*")

        def test(_: int) -> tuple[int, float]:
            call, began = Customer(app.test_client()), time.monotonic()
            call("POST", f"/subscriptions/{row.id}/test", {})
            return call.last.status_code, time.monotonic() - began

        found = list(pool.map(test, range(6)))
        gate.opened.set()

    assert sorted(status for status, _ in found) == [200, *[429] * 5]
    assert max(seconds for _, seconds in found) < 5
    assert [each.failure for each in attempts(state)] == ["timeout"]


def test_a_test_may_hold_a_thread_for_less_than_five_seconds(state: AppState) -> None:
    assert state.settings.manual_timeout < 5 < state.settings.timeout[1]


def dripping(talk: Talk) -> None:
    """Answer a byte at a time, for ever."""
    talk.read_request()
    for byte in itertools.chain(b"HTTP/1.1 200 OK\r\nX-A: ", itertools.repeat(97)):
        talk.send(bytes([byte]))
        talk.pause(0.05)


def endless(talk: Talk) -> None:
    """Answer with a body that does not end."""
    talk.read_request()
    talk.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    for _ in range(400):
        talk.send(b"x")
        talk.pause(0.05)


@pytest.mark.parametrize("behave", [dripping, endless, Gate()], ids=["dripping", "endless", "silent"])
def test_no_receiver_holds_a_thread_for_longer(app: Flask, state: AppState, behave: t.Any) -> None:
    object.__setattr__(state_of(app).settings, "manual_timeout", 0.5)
    call, visitor = Customer(app.test_client()), Visitor(app)
    visitor.token()
    with Receiver(behave) as receiver:
        row = subscribe(state, receiver.url(), "*")
        for ask in (
            lambda: call("POST", f"/subscriptions/{row.id}/test", {}, expect=200),
            lambda: visitor.post(f"/webhooks/{row.id}/test"),
            lambda: visitor.post("/probe", {"url": receiver.url()}),
        ):
            began = time.monotonic()
            ask()
            assert time.monotonic() - began < 4


def test_nor_does_a_name_server(app: Flask, state: AppState) -> None:
    object.__setattr__(state_of(app).settings, "manual_timeout", 0.5)
    call, visitor = Customer(app.test_client()), Visitor(app)
    kept, names = call.subscribe()["id"], HangingNames()
    state_of(app).transport._names._resolver = names
    for number, ask in enumerate(
        (
            lambda body: call("POST", "/subscriptions", {**body, "events": ["*"]}, expect=201),
            lambda body: call("PATCH", f"/subscriptions/{kept}", body, expect=200),
            lambda body: visitor.post("/webhooks/new", {**body, "event": "*", "environment": "staging"}),
            lambda body: visitor.post("/check-url", body),
            lambda body: visitor.post("/probe", body),
        )
    ):
        began = time.monotonic()
        ask({"url": f"https://{number}.example.com/"})
        assert time.monotonic() - began < 4
    assert len(names.asked) >= 3
    names.opened.set()


def test_a_retry_that_is_let_through_gives_its_place_back(app: Flask, state: AppState) -> None:
    log = write_log(state)
    call = Customer(app.test_client())

    for name in ("failed", "delivered", "cancelled"):
        call("POST", f"/deliveries/{log.deliveries[name]}/retry", expect=202)

    with Session(state.engine) as session:
        assert session.get_one(Delivery, log.deliveries["failed"]).trigger == "manual"


class HangingNames:
    """A name server that does not answer until it is `opened`, and then has no record."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.opened = threading.Event()

    def __call__(self, host: str, *_: object, **__: object) -> t.NoReturn:
        self.asked.append(host)
        self.opened.wait(20)
        raise socket.gaierror(socket.EAI_AGAIN, "no answer")


def test_names_that_hang_hold_one_thread_of_an_owner(app: Flask, state: AppState) -> None:
    """Saving a URL looks up its name; while one look-up hangs, other URLs of the owner are saved without it."""
    names = state_of(app).transport._names._resolver = HangingNames()
    call, other = Customer(app.test_client()), Customer(app.test_client())
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(lambda: call.subscribe(url="https://a.example.com/"))
        wait_until(lambda: names.asked)

        made = [other.subscribe(url=f"https://{n}.example.com/")["id"] for n in range(5)]

        assert len(names.asked) == 1
        assert not first.done()
        names.opened.set()
        assert first.result(20)["id"] not in made


def test_names_that_hang_hold_one_thread_of_operators_too(app: Flask, state: AppState) -> None:
    made = [subscribe(state, "http://127.0.0.1:1/", "*", owner=owner).id for owner in "123"]
    names = state_of(app).transport._names._resolver = HangingNames()
    operators = [Customer(app.test_client(), "staff") for _ in made]
    for each in operators:
        each.headers["X-Operator"] = "yes"

    def move(number: int) -> t.Any:
        body = {"url": f"https://{number}.example.com/"}
        return operators[number]("PATCH", f"/subscriptions/{made[number]}", body, expect=200)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(move, 0)
        wait_until(lambda: names.asked)

        assert [move(number)["url"] for number in (1, 2)] == [
            "https://1.example.com/",
            "https://2.example.com/",
        ]

        assert len(names.asked) == 1
        assert not first.done()
        names.opened.set()
        assert first.result(20)["id"] == made[0]


def test_a_test_with_a_record_keeps_no_more_than_an_event_may_have(
    app: Flask, state: AppState, inbox: Receiver
) -> None:
    row = subscribe(state, inbox.url(), "invoices.*")
    large = {"owner": "1", "number": "", "status": Status.DRAFT, "total": 0, "note": "x" * 300_000}
    with state.engine.begin() as connection:  # from elsewhere, such as an import
        found = connection.execute(sa.insert(t.cast("sa.Table", Invoice.__table__)), large)
        key = str(found.inserted_primary_key[0])
    call = Customer(app.test_client())

    answer = call(
        "POST", f"/subscriptions/{row.id}/test", {"event": "invoices.created", "entity_id": key}, expect=422
    )

    assert "WEBHOOKS_PAYLOAD_LIMIT" in answer["detail"]
    assert inbox.requests == attempts(state) == recorded(state) == []


def test_names_inside_and_names_that_do_not_exist_get_the_same_answer(app: Flask, state: AppState) -> None:
    def resolve(host: str, *_: object, **__: object) -> t.Any:
        if host == "db.example.com":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.7", 443))]
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    state_of(app).transport._names._resolver = resolve
    call, visitor = Customer(app.test_client()), Visitor(app)
    kept = call.subscribe()["id"]
    answers = []
    for host in ("db.example.com", "nothing.example.com"):
        url = f"https://{host}/"
        made = call("POST", "/subscriptions", {"url": url, "events": ["*"]}, expect=422)
        changed = call("PATCH", f"/subscriptions/{kept}", {"url": url}, expect=422)
        pages = [
            visitor.post(path, {"url": url}, HX_Request="true").text for path in ("/check-url", "/probe")
        ]
        answers.append((made, changed, pages))

    assert answers[0] == answers[1]


def test_new_subscriptions_of_an_owner_are_limited_by_day(app: Flask, state: AppState) -> None:
    object.__setattr__(state_of(app).settings, "creation_limit", 3)
    call, visitor, other = Customer(app.test_client()), Visitor(app), Customer(app.test_client(), "2")
    for _ in range(3):
        call("DELETE", f"/subscriptions/{call.subscribe()['id']}", expect=204)

    call("POST", "/subscriptions", {"url": "http://127.0.0.1:5999/", "events": ["*"]}, expect=429)
    assert 28_000 < int(call.last.headers["Retry-After"]) <= 28_800
    form = {"url": "http://127.0.0.1:5999/", "environment": "staging", "event": "*", "active": "on"}
    assert visitor.post("/webhooks/new", form).status_code == 429
    other.subscribe()


def fail(state: AppState, *rows: t.Any, each: int = 1) -> list[str]:
    """Record deliveries that have failed; return their ids."""
    fill(state, list(rows), each * len(rows))
    with state.engine.begin() as connection:
        connection.execute(sa.update(Delivery).values(state="failed", due_at=None))
        return list(connection.scalars(sa.select(Delivery.id).order_by(Delivery.id)))


def test_what_an_owner_has_begun_and_is_not_done_has_places_at_both_doors(
    app: Flask, state: AppState, inbox: Receiver
) -> None:
    object.__setattr__(state_of(app).settings, "manual_unfinished", 3)
    rows = [subscribe(state, inbox.url(), "reports.ready") for _ in range(2)]
    theirs = subscribe(state, inbox.url(), "reports.ready", owner="2")
    one, two, three, *_ = fail(state, *rows, each=2)
    call, visitor, other = Customer(app.test_client()), Visitor(app), Customer(app.test_client(), "2")

    call("POST", f"/deliveries/{one}/retry", expect=202)
    assert visitor.post(f"/deliveries/{two}/retry").status_code == 303
    call("POST", f"/subscriptions/{rows[0].id}/replay", {"mode": "failed"}, expect=202)

    for _ in range(2):
        call("POST", f"/deliveries/{three}/retry", expect=429)
        assert call.last.headers["Retry-After"] == "5"
        call("POST", f"/subscriptions/{rows[1].id}/replay", {"mode": "failed"}, expect=429)
        assert visitor.post(f"/deliveries/{three}/retry").status_code == 429
        assert visitor.post(f"/webhooks/{rows[1].id}/replay", {"mode": "failed"}).status_code == 429
    call("POST", f"/deliveries/{one}/retry", expect=202)  # has its place already
    call(
        "POST", f"/subscriptions/{rows[0].id}/replay", {"mode": "failed"}, expect=202
    )  # is the one that runs
    other("POST", f"/subscriptions/{theirs.id}/replay", {"mode": "failed"}, expect=202)

    run(state_of(app))
    call("POST", f"/deliveries/{three}/retry", expect=202)
    with state.engine.connect() as connection:
        assert {one, two} <= set(
            connection.scalars(sa.select(Delivery.id).where(Delivery.state == "delivered"))
        )


def test_counts_of_a_replay_have_a_pace_of_their_own_at_both_doors(
    app: Flask, state: AppState, inbox: Receiver
) -> None:
    object.__setattr__(state_of(app).settings, "manual_rate", 3)
    row = subscribe(state, inbox.url(), "reports.ready")
    call, visitor = Customer(app.test_client()), Visitor(app)

    for _ in range(2):
        call("POST", f"/subscriptions/{row.id}/replay", {"dry_run": True}, expect=200)
    assert visitor.post(f"/webhooks/{row.id}/replay/count", {"mode": "all"}).status_code == 200
    call("POST", f"/subscriptions/{row.id}/replay", {"dry_run": True}, expect=429)
    assert 1 <= int(call.last.headers["Retry-After"]) <= 20
    assert visitor.post(f"/webhooks/{row.id}/replay/count", {"mode": "all"}).status_code == 429
    call("POST", f"/subscriptions/{row.id}/test", {}, expect=200)
