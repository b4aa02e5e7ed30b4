"""The life of a subscription through the API alone, with a real receiver on a socket."""

from __future__ import annotations

import json
import threading
import typing as t
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session
from standardwebhooks import Webhook

from flask_webhooks import replay
from flask_webhooks.models import Delivery, Lane, Replay
from flask_webhooks.outbox import statistics
from flask_webhooks.state import AppState, state_of
from flask_webhooks.worker import Coordinator
from tests.host import Client, Invoice, Status, db
from tests.receivers import Receiver, Talk, response
from tests.stage import wait_until

from .conftest import Customer


class Moody:
    """A receiver's behaviour that can be changed while it runs."""

    def __init__(self) -> None:
        self.status = 200

    def __call__(self, talk: Talk) -> None:
        while True:
            talk.read_request()
            talk.send(response(self.status, body=b"so be it"))


@pytest.fixture
def mood() -> Moody:
    return Moody()


@pytest.fixture
def receiver(mood: Moody) -> t.Iterator[Receiver]:
    with Receiver(mood) as receiver:
        yield receiver


@pytest.fixture
def app(make_app: t.Callable[..., Flask]) -> t.Iterator[Flask]:
    app = make_app(WEBHOOKS_RETRY="none", WEBHOOKS_RECORD="all", WEBHOOKS_REPLAY_RATE=10_000)
    with app.app_context():
        yield app


def sell(number: str, owner: str = "1", **values: t.Any) -> Invoice:
    invoice = Invoice(owner=owner, number=number, **values)
    db.session.add(invoice)
    db.session.commit()
    return invoice


def deliver(state: AppState) -> None:
    replay.enqueue_batches(state)
    Coordinator(state, holder="test").run()


def test_statistics_count_what_is_broken(state: AppState, call: Customer) -> None:
    path = f"/subscriptions/{call.subscribe()['id']}/stats"
    sell("A-1")
    assert call("GET", path, expect=200)["states"]["broken"] == 0
    with state.engine.begin() as connection:
        connection.execute(sa.update(Delivery).values(state="broken", due_at=None))

    states = call("GET", path, expect=200)["states"]
    assert (states["broken"], states["pending"]) == (1, 0)


def test_a_whole_life(state: AppState, call: Customer, mood: Moody, receiver: Receiver) -> None:
    # Read the catalogue, subscribe.
    assert "invoices.created" in [
        event["name"] for channel in call("GET", "/catalog")["channels"] for event in channel["events"]
    ]
    made = call("POST", "/subscriptions", {"url": receiver.url(), "channels": ["invoices"]}, expect=201)
    path, secret = f"/subscriptions/{made['id']}", made["secret"]

    # Try it.
    trial = call("POST", f"{path}/test", {}, expect=200)
    assert (trial["state"], trial["event"], trial["trigger"]) == ("delivered", "webhooks.test", "test")
    assert trial["attempt_log"][0]["response"]["body"] == "so be it"
    [request] = receiver.wait_for(1)
    assert Webhook(secret).verify(request.body, request.headers)["event"] == "webhooks.test"

    # Receive.
    sell("A-1")
    deliver(state)
    request = receiver.wait_for(2)[-1]
    assert Webhook(secret).verify(request.body, request.headers)["data"]["number"] == "A-1"

    # Fail, and look into the log.
    mood.status = 500
    sell("A-2")
    deliver(state)
    [failed] = call("GET", f"/deliveries?subscription={made['id']}&state=failed&event=invoices.*")["items"]
    found = call("GET", f"/deliveries/{failed['id']}", expect=200)
    assert found["reason"] == "http_5xx"
    attempt = found["attempt_log"][0]
    assert attempt["response"]["status"] == 500
    assert attempt["request"]["headers"]["webhook-id"] == found["message_id"]
    assert "receiver failed" in attempt["hint"]
    sent = receiver.requests[-1].body
    assert found["body"].encode() == sent
    stats = call("GET", f"{path}/stats", expect=200)
    assert (stats["states"]["delivered"], stats["states"]["failed"], stats["attempts"]) == (1, 1, 2)
    assert stats["success_rate"] == 0.5
    assert stats["series"][-1]["broken"] + stats["series"][-2]["broken"] == 1
    assert len(stats["series"]) == 24

    # Rotate: both secrets sign for a while.
    new = call("POST", f"{path}/secret/rotate", {"overlap": 3600}, expect=200)["secret"]
    assert call("GET", f"{path}/secret", expect=200)["secret"] == new != secret

    # Replay what failed: same id, same bytes, new signature that both secrets verify.
    mood.status = 200
    assert call("POST", f"{path}/replay", {"dry_run": True}, expect=200)["total"] == 1
    made = call("POST", f"{path}/replay", {}, expect=202)
    deliver(state)
    again = receiver.wait_for(4)[-1]
    assert again.body == sent
    assert again.headers["webhook-id"] == failed["message_id"]
    for key in (secret, new):
        Webhook(key).verify(again.body, again.headers)
    assert call("GET", f"/replays/{made['id']}", expect=200)["state"] == "done"
    found = call("GET", f"/deliveries/{failed['id']}")
    assert [each["trigger"] for each in found["attempt_log"]] == ["automatic", "replay"]
    assert found["state"] == "delivered"

    # Leave.
    call("DELETE", path, {}, expect=204)
    call("GET", path, expect=404)
    sell("A-3")
    deliver(state)
    assert len(receiver.requests) == 4
    assert call("GET", f"/deliveries/{failed['id']}", expect=200)["state"] == "delivered"


def test_a_test_of_a_real_record(
    state: AppState, call: Customer, other: Customer, receiver: Receiver
) -> None:
    invoice = sell("B-7", total=12)
    mine = call.subscribe("invoices.*", url=receiver.url())["id"]
    theirs = other.subscribe("invoices.*", url=receiver.url())["id"]
    body = {"event": "invoices.created", "entity_id": str(invoice.id)}

    call("POST", f"/subscriptions/{mine}/test", body, expect=200)
    assert json.loads(receiver.wait_for(1)[0].body)["data"]["number"] == "B-7"
    for wrong in ({**body, "entity_id": "999"}, {**body, "entity_id": "x"}, {**body, "entity_id": "9" * 40}):
        call("POST", f"/subscriptions/{mine}/test", wrong, expect=422)
    other("POST", f"/subscriptions/{theirs}/test", body, expect=422)
    assert len(receiver.requests) == 1


def test_a_test_of_a_sample_counts_for_nothing(
    state: AppState, call: Customer, mood: Moody, receiver: Receiver
) -> None:
    mood.status = 410
    mine = call.subscribe("invoices.*", url=receiver.url())["id"]

    trial = call("POST", f"/subscriptions/{mine}/test", {"event": "invoices.paid"}, expect=200)

    assert (trial["state"], trial["event"]) == ("failed", "invoices.paid")
    assert call("GET", f"/subscriptions/{mine}")["active"] is True
    stats = call("GET", f"/subscriptions/{mine}/stats")
    assert (stats["attempts"], stats["health"]["failures"]) == (0, 0)
    assert call("POST", f"/subscriptions/{mine}/replay", {"mode": "all", "dry_run": True})["total"] == 0


def test_a_test_says_what_the_guard_refuses(make_app: t.Callable[..., Flask]) -> None:
    app = make_app(WEBHOOKS_ALLOWED_NETWORKS=[], WEBHOOKS_ALLOW_HTTP=True)
    call = Customer(app.test_client())

    call("POST", "/subscriptions", {"url": "http://127.0.0.1:5999/", "events": ["*"]}, expect=422)


# ---- replay ----------------------------------------------------------------------------------------------


def test_missed_events_are_sent_once(state: AppState, call: Customer, receiver: Receiver) -> None:
    for number in range(3):
        sell(f"C-{number}")
    sell("not mine", owner="2")
    mine = call.subscribe("invoices.created", url=receiver.url())["id"]
    call("POST", f"/subscriptions/{mine}/test", {"event": "invoices.created"}, expect=200)
    body = {"mode": "missed"}

    assert call("POST", f"/subscriptions/{mine}/replay", {**body, "dry_run": True})["total"] == 3
    for _ in range(2):
        call("POST", f"/subscriptions/{mine}/replay", body, expect=202)
        deliver(state)

    numbers = sorted(json.loads(each.body)["data"]["number"] for each in receiver.wait_for(4)[1:])
    assert numbers == ["C-0", "C-1", "C-2"]
    assert len(receiver.requests) == 4


def test_ten_clicks_are_one_replay(make_app: t.Callable[..., Flask], receiver: Receiver, mood: Moody) -> None:
    app = make_app(WEBHOOKS_RETRY="none", SQLALCHEMY_ENGINE_OPTIONS={"pool_size": 12, "pool_timeout": 60})
    state = state_of(app)
    call = Customer(app.test_client())
    mine = call.subscribe("invoices.created", url=receiver.url())["id"]
    mood.status = 500
    with app.app_context():
        sell("D-1")
    Coordinator(state, holder="test").run()
    barrier, seen = threading.Barrier(10), set()

    def click(customer: Customer) -> None:
        barrier.wait()
        seen.add(customer("POST", f"/subscriptions/{mine}/replay", {}, expect=202)["id"])

    threads = [threading.Thread(target=click, args=(Customer(app.test_client()),)) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    turns = [threading.Thread(target=replay.enqueue_batches, args=(state,)) for _ in range(4)]
    for thread in turns:
        thread.start()
    for thread in turns:
        thread.join()
    mood.status = 200
    Coordinator(state, holder="test").run()

    assert len(seen) == 1
    assert len(receiver.requests) == 2
    assert call("GET", f"/replays/{seen.pop()}")["queued"] == 1


def test_a_replay_leaves_the_health_alone(
    state: AppState, call: Customer, receiver: Receiver, mood: Moody
) -> None:
    mine = call.subscribe("invoices.created", url=receiver.url())["id"]
    mood.status = 500
    sell("E-1")
    deliver(state)
    with state.engine.connect() as connection:
        before = connection.execute(sa.select(Lane.failures, Lane.failing_since)).one()

    call("POST", f"/subscriptions/{mine}/replay", {}, expect=202)
    deliver(state)

    assert len(receiver.requests) == 2
    with state.engine.connect() as connection:
        assert connection.execute(sa.select(Lane.failures, Lane.failing_since)).one() == before


def test_retries_of_a_replay_leave_the_health_alone_too(
    make_app: t.Callable[..., Flask], receiver: Receiver, mood: Moody
) -> None:
    app = make_app(WEBHOOKS_RETRY=[0.01, 0.01], WEBHOOKS_RECORD="all")
    state, call = state_of(app), Customer(app.test_client())
    mood.status = 500
    with app.app_context():
        sell("A")
        mine = call.subscribe("invoices.*", url=receiver.url())["id"]
        call("POST", f"/subscriptions/{mine}/replay", {"mode": "missed"}, expect=202)
        replay.enqueue_batches(state)
        wait_until(lambda: not Coordinator(state, holder="test").run().next_due)

        [delivery] = call("GET", "/deliveries")["items"]
        found = call("GET", f"/deliveries/{delivery['id']}")
        health = call("GET", f"/subscriptions/{mine}/stats")["health"]
        call("POST", f"/deliveries/{delivery['id']}/retry", expect=202)
        Coordinator(state, holder="test").run()

        assert [each["trigger"] for each in found["attempt_log"]] == ["replay"] * 3
        assert (found["state"], health["failures"]) == ("failed", 0)
        assert call("GET", f"/subscriptions/{mine}/stats")["health"]["failures"] >= 1  # a manual retry counts


def test_a_replay_goes_at_its_rate_and_can_be_cancelled(
    make_app: t.Callable[..., Flask], receiver: Receiver
) -> None:
    app = make_app(WEBHOOKS_REPLAY_RATE=2, WEBHOOKS_RECORD="all")
    state = state_of(app)
    call = Customer(app.test_client())
    with app.app_context():
        for number in range(30):
            sell(f"F-{number}")
    mine = call.subscribe("invoices.created", url=receiver.url())["id"]
    made = call("POST", f"/subscriptions/{mine}/replay", {"mode": "missed"}, expect=202)["id"]

    assert replay.enqueue_batches(state) == 10  # five seconds' worth
    assert replay.enqueue_batches(state) == 0  # the next few are not due yet
    due = [each["due_at"] for each in call("GET", "/deliveries?state=pending&limit=100")["items"]]
    span = datetime.fromisoformat(due[0]) - datetime.fromisoformat(due[-1])
    assert span == timedelta(seconds=4.5)
    progress = call("GET", f"/replays/{made}", expect=200)
    assert (progress["total"], progress["queued"], progress["state"]) == (30, 10, "running")

    call("POST", f"/replays/{made}/cancel", {}, expect=200)
    with Session(state.engine) as session:
        session.execute(sa.update(Replay).values(next_at=datetime.now(UTC)))
        session.commit()
    assert replay.enqueue_batches(state) == 0
    assert call("GET", f"/replays/{made}")["state"] == "cancelled"


def test_another_replay_waits(state: AppState, call: Customer) -> None:
    mine = call.subscribe("invoices.created")["id"]
    call("POST", f"/subscriptions/{mine}/replay", {"mode": "failed"}, expect=202)

    call("POST", f"/subscriptions/{mine}/replay", {"mode": "all"}, expect=409)


# ---- why not ---------------------------------------------------------------------------------------------


def test_every_reason_is_shown(state: AppState, call: Customer, receiver: Receiver) -> None:
    ids = {
        "sent": call.subscribe("invoices.*", url=receiver.url())["id"],
        "off": call.subscribe("invoices.*", active=False)["id"],
        "not_listening": call.subscribe("clients.*")["id"],
        "other_environment": call.subscribe("invoices.*", environment="production")["id"],
        "changed": call.subscribe("clients.*")["id"],
    }
    sell("G-1")
    ids["newer"] = call.subscribe("invoices.*")["id"]
    call("PATCH", f"/subscriptions/{ids['changed']}", {"events": ["invoices.*"]}, expect=200)
    deliver(state)
    [message] = call("GET", "/messages?event=invoices.created", expect=200)["items"]

    found = call("GET", f"/messages/{message['id']}", expect=200)

    reasons = {each["subscription_id"]: (each["state"], each["reason"]) for each in found["subscriptions"]}
    assert reasons[ids["sent"]] == ("delivered", None)
    assert reasons[ids["off"]] == ("held", "off")
    assert reasons[ids["not_listening"]] == (None, "not_listening")
    assert reasons[ids["other_environment"]] == (None, "other_environment")
    assert reasons[ids["newer"]] == (None, "newer")
    assert reasons[ids["changed"]] == (None, "listened_later")
    assert found["data"]["number"] == "G-1"


def test_an_exclusive_channel_is_not_in_the_star(app: Flask, state: AppState, call: Customer) -> None:
    mine = call.subscribe("*")["id"]
    from flask_webhooks import capture

    capture.emit_many(state, db.session(), "ledgers.closed", [{"id": 1}], owner="1")
    db.session.commit()
    [message] = call("GET", "/messages?event=ledgers.closed", expect=200)["items"]

    [only] = call("GET", f"/messages/{message['id']}")["subscriptions"]
    assert (only["subscription_id"], only["reason"]) == (mine, "exclusive")


# ---- the log ---------------------------------------------------------------------------------------------


def test_lists_can_be_filtered(state: AppState, call: Customer, receiver: Receiver) -> None:
    first = call.subscribe("invoices.*", "clients.*", url=receiver.url())["id"]
    second = call.subscribe("invoices.created", url=receiver.url())["id"]
    db.session.add(Client(owner="1", name="Ada"))
    db.session.commit()
    invoice = sell("H-1")
    invoice.status = Status.SENT
    db.session.commit()
    deliver(state)

    def count(query: str) -> int:
        seen, cursor = [], ""
        while True:
            page = call("GET", f"/deliveries?limit=1&{query}{cursor}", expect=200)
            seen += [each["id"] for each in page["items"]]
            if page["next"] is None:
                assert len(seen) == len(set(seen))
                return len(seen)
            cursor = f"&cursor={page['next']}"

    assert count("") == 5
    assert count(f"subscription={first}") == 4
    assert count(f"subscription={second}&state=delivered") == 1
    assert count("state=failed") == 0
    assert count("event=invoices.*") == 4
    assert count("event=invoices.created") == 2
    assert count("event=clients.created&state=delivered") == 1
    assert count("event=invoices.created&state=pending") == 0
    assert count("since=2020-01-01T00:00:00Z") == 5
    assert count("until=2020-01-01T00:00:00Z") == 0
    message = call("GET", "/messages?event=invoices.created")["items"][0]["id"]
    assert count(f"message={message}") == 2


def test_retry_and_cancel_by_hand(state: AppState, call: Customer, receiver: Receiver, mood: Moody) -> None:
    mine = call.subscribe("invoices.created", url=receiver.url())["id"]
    mood.status = 500
    sell("I-1")
    deliver(state)
    [failed] = call("GET", "/deliveries?state=failed")["items"]
    path = f"/deliveries/{failed['id']}"
    call("POST", f"{path}/cancel", {}, expect=409)

    mood.status = 200
    for _ in range(2):
        assert call("POST", f"{path}/retry", {}, expect=202)["state"] == "pending"
    deliver(state)
    assert len(receiver.wait_for(2)) == 2
    assert receiver.requests[0].body == receiver.requests[1].body
    assert call("GET", path)["attempt_log"][-1]["trigger"] == "manual"

    call("POST", f"{path}/retry", {}, expect=202)
    for _ in range(2):
        assert call("POST", f"{path}/cancel", {}, expect=200)["state"] == "cancelled"
    deliver(state)
    assert len(receiver.requests) == 2
    call("PATCH", f"/subscriptions/{mine}", {"active": False}, expect=200)
    call("POST", f"{path}/retry", {}, expect=409)


def test_percentiles_are_within_a_fifth() -> None:
    tally = statistics.HourlyCounts()
    now = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(1, 1001):
        tally.add("s", now, status=200, seconds=number / 1000, state="delivered")

    sums = statistics.Sums.of(tally.rows())

    assert sums.percentile(0.5) == pytest.approx(0.5, rel=0.2)
    assert sums.percentile(0.95) == pytest.approx(0.95, rel=0.2)
    assert statistics.Sums.of([]).percentile(0.5) is None


def test_sums_grow_with_each_batch(state: AppState) -> None:
    key, now = "01981f6e-5c1a-7b2e-9c55-0f6f3a1d2b4c", datetime(2026, 1, 1, 5, 30, tzinfo=UTC)
    for status in (200, 301, 404, 503, None):
        tally = statistics.HourlyCounts()
        tally.add(key, now, status=status, seconds=20.0, state="pending")
        with state.engine.begin() as connection:
            statistics.add(connection, tally)

    with state.engine.connect() as connection:
        [row] = statistics.read(connection, key, now - timedelta(hours=1), now).values()
    assert [row[name] for name in statistics.OUTCOMES] == [1, 1, 1, 1, 1]
    assert row["took_23"] == 5
