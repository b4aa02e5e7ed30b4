"""The headers of every request in addition to the signed ones; they change no body."""

from __future__ import annotations

import json
import typing as t
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session

from flask_webhooks import receiving, replay
from flask_webhooks.delivery import MASK, Subject, send_test_request
from flask_webhooks.models import Delivery, Message
from flask_webhooks.replay.backfill import Backfill
from flask_webhooks.state import AppState, state_of
from tests.host import Client, db
from tests.receivers import EVENT_HEADERS, Received, Receiver, ok
from tests.stage import attempts, deliveries, fill, recorded, secret_of, subscribe
from tests.worker.answers import one_after_another, run


def header_values(request: Received) -> list[str]:
    """The values, in the order of `EVENT_HEADERS`."""
    return [request.headers[name] for name in EVENT_HEADERS]


def triggers(requests: t.Iterable[Received]) -> list[str]:
    return [request.headers["webhook-trigger"] for request in requests]


def test_every_request_says_which_event_when_and_which_attempt(make_app: t.Callable[..., Flask]) -> None:
    state = state_of(make_app(WEBHOOKS_RETRY=[0.0]))
    with Receiver(one_after_another(500, 200)) as receiver:
        subscription = subscribe(state, receiver.url(), "clients.*")
        with state.app.app_context():
            db.session.add(Client(owner="1", name="Ama"))
            db.session.commit()
        run(state)
        first, second = receiver.requests

    [message], [delivery] = recorded(state), deliveries(state)
    at = message.occurred_at.isoformat(timespec="microseconds")
    expected = ["clients.created", at, str(message.sequence), "1", delivery.id, "live"]
    assert header_values(first) == expected
    assert header_values(second) == [*expected[:3], "2", *expected[4:]]
    assert first.body == second.body
    found = receiving.verify(_Asked(second), secret_of(state, subscription))
    assert (found.event, found.occurred_at, found.sequence) == (
        message.event,
        message.occurred_at,
        message.sequence,
    )
    assert (found.attempt, found.delivery, found.trigger) == (2, delivery.id, "live")
    assert found == json.loads(second.body)
    logged = [json.loads(row.request_headers) for row in attempts(state)]
    assert [headers["webhook-attempt"] for headers in logged] == ["1", "2"]
    # Headers that the log may show are listed: every one of ours is.
    assert MASK not in {value for headers in logged for value in headers.values()}


class _Asked:
    """A request that arrived, as `verify` takes it."""

    def __init__(self, received: Received) -> None:
        self.headers, self._body = received.headers, received.body

    def get_data(self) -> bytes:
        return self._body


def test_a_moment_without_a_fraction_has_its_microseconds_too(state: AppState, inbox: Receiver) -> None:
    fill(state, [subscribe(state, inbox.url())], 1)
    with state.engine.begin() as connection:
        connection.execute(sa.update(Message).values(occurred_at=datetime(2026, 3, 1, tzinfo=UTC)))

    run(state)

    assert inbox.requests[0].headers["webhook-occurred-at"] == "2026-03-01T00:00:00.000000+00:00"


def test_what_is_sent_again_by_hand_or_by_a_replay_says_so(state: AppState, inbox: Receiver) -> None:
    subscription = subscribe(state, inbox.url(), "reports.*")
    fill(state, [subscription], 1)
    run(state)
    [delivery] = deliveries(state)
    now = datetime.now(UTC)
    with state.engine.begin() as connection:
        assert replay.retry(connection, delivery.id, now)
    run(state)
    wanted = replay.Filter(("delivered",), (), now - timedelta(hours=1), now + timedelta(hours=1))
    with Session(state.engine) as session:
        replay.start(state, session, session.merge(subscription), wanted)
        session.commit()
    assert replay.enqueue_batches(state) == 1
    run(state)

    assert triggers(inbox.requests) == ["live", "replay", "replay"]
    assert len({request.body for request in inbox.requests}) == 1


def test_a_backfill_and_a_test_say_so(state: AppState, inbox: Receiver) -> None:
    subscription = subscribe(state, inbox.url(), "clients.*")
    with state.engine.begin() as connection:
        connection.execute(sa.insert(Client), [{"owner": "1", "name": "Ama"}])
    list(Backfill(state, "clients", subscription.id).batches())
    run(state)
    send_test_request(state, subscription.id, Subject("clients.created", {"id": 1}, "1"), format=None)
    send_test_request(state, subscription.id, Subject(), format=None)

    assert triggers(inbox.requests) == ["backfill", "test", "test"]
    assert [request.headers["webhook-event"] for request in inbox.requests] == [
        "clients.created",
        "clients.created",
        "webhooks.test",
    ]
    for request in inbox.requests:
        assert set(EVENT_HEADERS) <= request.headers.keys()
        datetime.fromisoformat(request.headers["webhook-occurred-at"])
        assert request.headers["webhook-sequence"].isdigit()


def test_a_custom_header_of_an_older_version_does_not_pass_for_ours(state: AppState, inbox: Receiver) -> None:
    kept = {"webhook_event": "a", "Webhook-Trigger": "b", "WEBHOOK_sequence": "c", "X-Key": "d"}
    fill(state, [subscribe(state, inbox.url(), headers=state.vault.seal(json.dumps(kept)))], 1)

    run(state)

    lines = [line.lower().replace("_", "-") for line in inbox.requests[0].lines]
    for name in EVENT_HEADERS:
        assert sum(line.startswith(f"{name}:") for line in lines) == 1
    assert inbox.requests[0].headers["x-key"] == "d"


@pytest.mark.parametrize("format", ["channel", "minimal"])
def test_bodies_stay_as_they_are(state: AppState, format: str) -> None:
    with Receiver(ok()) as receiver:
        [message] = fill(state, [subscribe(state, receiver.url())], 1, format=format)
        run(state)

    expected = {"event": "reports.ready", "data": {"id": 1}}
    if format == "channel":
        expected |= {"message": "Report ready.", "idempotency_key": message, "environment": "staging"}
    assert json.loads(receiver.requests[0].body) == expected


def test_a_message_that_was_purged_is_not_sent_even_if_its_body_is_kept(state: AppState) -> None:
    with Receiver(one_after_another(500, 200)) as receiver:
        fill(state, [subscribe(state, receiver.url(), retry=[0.1])], 1)
        with state.engine.begin() as connection:
            connection.execute(sa.update(Delivery).values(body=b"{}", attempts=1))
            connection.execute(sa.delete(Message))
        run(state)

    assert not receiver.requests
    assert [(row.failure, row.detail) for row in attempts(state)] == [
        ("purged", "The message has been purged.")
    ]
