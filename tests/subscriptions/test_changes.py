"""Creating and changing subscriptions, one at a time and concurrently."""

from __future__ import annotations

import re
import typing as t
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy.orm import Session
from standardwebhooks import Webhook
from werkzeug.test import EnvironBuilder

from flask_webhooks import models, receiving, signals, signing, subscriptions
from flask_webhooks.errors import (
    ExclusivityError,
    SubscriptionChangedError,
    SubscriptionError,
    SubscriptionMissingError,
)
from flask_webhooks.ids import uuid7
from flask_webhooks.models import Delivery, Lane, Listener, State, Subscription
from flask_webhooks.state import AppState
from flask_webhooks.subscriptions import SubscriptionInput
from flask_webhooks.subscriptions.secrets import MOST_SECRETS
from tests.receivers import Receiver
from tests.stage import fill
from tests.worker.answers import run

URL = "http://127.0.0.1:5999/hooks"


@pytest.fixture
def session(state: AppState) -> t.Iterator[Session]:
    with Session(state.engine, info={"webhooks": False}, expire_on_commit=False) as session:
        yield session


def make(state: AppState, session: Session, **values: t.Any) -> Subscription:
    owner = values.pop("owner", "1")
    values = {"environment": "staging", "url": URL, "events": ["invoices.created"], **values}
    row, _ = subscriptions.create(state, session, SubscriptionInput(**values), owner=owner)
    session.commit()
    return row


def test_a_new_subscription_is_whole(state: AppState, session: Session) -> None:
    row, secret = subscriptions.create(
        state,
        session,
        SubscriptionInput(
            environment="staging",
            url=URL,
            events=[{"event": "invoices.updated", "includes": ["lines"]}],
            channels=["clients"],
            headers={"X-Key": "open sesame"},
        ),
        owner="1",
    )
    session.commit()

    found = session.get_one(Subscription, row.id, populate_existing=True)
    assert {(each.event, tuple(each.includes), each.owner) for each in found.listeners} == {
        ("invoices.updated", ("lines",), "1"),
        ("clients.*", (), "1"),
    }
    assert session.get(Lane, row.id) is not None
    assert "sesame" not in (found.headers or "")
    assert subscriptions.names(state.vault, found.headers) == ["X-Key"]
    assert secret.text not in found.secrets[0].sealed
    assert [each.text for _, each in subscriptions.reveal(state, found, datetime.now(UTC))] == [secret.text]


def test_every_mistake_is_reported_at_once(state: AppState, session: Session) -> None:
    with pytest.raises(SubscriptionError) as caught:
        make(
            state,
            session,
            environment="moon",
            url="https://10.0.0.1/",
            events=["invoice.created", {"event": "invoices.*", "includes": ["linse"]}],
            channels=["client"],
            description="x" * 1025,
            format="morse",
            headers={"Host": "x", "X-A": "a\r\nb"},
            retry=[-1],
            rate_limit=0,
            metadata={"a": "x" * 5000},
            secret="whsec_short",
        )

    fields = caught.value.fields
    assert set(fields) == {
        "environment", "url", "events.0", "events.1.includes", "channels.0", "description", "format", "headers",
        "retry", "rate_limit", "metadata", "secret",
    }  # fmt: skip
    assert len(fields["headers"]) == 2
    assert 'Did you mean "invoices.created"?' in fields["events.0"][0]


def test_exclusive_channels_name_each_other(state: AppState, session: Session) -> None:
    with pytest.raises(ExclusivityError, match=r"ledgers.*invoices"):
        make(state, session, events=["ledgers.closed", "invoices.created"])


def test_no_event_is_one_mistake_among_others(state: AppState, session: Session) -> None:
    with pytest.raises(SubscriptionError) as caught:
        make(state, session, events=[], description="\0")

    assert set(caught.value.fields) == {"description", "events"}


def test_a_change_replaces_what_it_listens_to(state: AppState, session: Session) -> None:
    row = make(state, session, events=["invoices.created", "invoices.updated"])
    kept = {each.event: each.id for each in row.listeners}

    changed = subscriptions.change(
        state,
        session,
        row.id,
        SubscriptionInput(events=["invoices.updated"], channels=["clients"]),
        owner="1",
    )
    session.commit()

    assert {each.event for each in changed.listeners} == {"invoices.updated", "clients.*"}
    assert {each.id for each in changed.listeners if each.event == "invoices.updated"} == {
        kept["invoices.updated"]
    }
    assert changed.version == 2


@pytest.mark.parametrize("text", ["\\u0000", "\\\\u0000", "C:\\u0000\\"])
def test_a_backslash_in_metadata_is_no_nul(state: AppState, session: Session, text: str) -> None:
    key = make(state, session, metadata={text: [text]}).id
    session.commit()
    session.expire_all()

    assert session.get_one(Subscription, key).details == {text: [text]}
    with pytest.raises(SubscriptionError, match="NUL"):
        make(state, session, metadata={text: text + "\\\0"})


def test_headers_and_metadata_are_merged_by_name(state: AppState, session: Session) -> None:
    row = make(state, session, headers={"X-A": "1", "X-B": "2"}, metadata={"a": 1, "b": 2})

    changed = subscriptions.change(
        state,
        session,
        row.id,
        SubscriptionInput(headers={"x-a": None, "X-C": "3"}, metadata={"a": None, "c": 3}),
        owner="1",
    )
    session.commit()

    assert subscriptions.names(state.vault, changed.headers) == ["X-B", "X-C"]
    assert changed.details == {"b": 2, "c": 3}


def test_a_lost_update_is_refused(state: AppState, session: Session) -> None:
    row = make(state, session)
    subscriptions.change(state, session, row.id, SubscriptionInput(description="first"), owner="1", version=1)
    session.commit()

    with pytest.raises(SubscriptionChangedError, match="version 2"):
        subscriptions.change(
            state, session, row.id, SubscriptionInput(description="second"), owner="1", version=1
        )


def test_another_owners_does_not_exist(state: AppState, session: Session) -> None:
    row = make(state, session)

    with pytest.raises(SubscriptionMissingError):
        subscriptions.change(state, session, row.id, SubscriptionInput(active=False), owner="2")
    with pytest.raises(SubscriptionMissingError):
        subscriptions.remove(state, session, row.id, owner="2")


def pending(session: Session, row: Subscription, state: State = State.PENDING) -> str:
    key = uuid7()
    due = datetime.now(UTC) if state is State.PENDING else None
    session.add(
        Delivery(
            id=key,
            message_id=uuid7(),
            subscription_id=row.id,
            state=state.value,
            due_at=due,
            format="channel",
        )
    )
    session.commit()
    return key


def test_switching_off_holds_and_on_asks_what_becomes_of_it(state: AppState, session: Session) -> None:
    row = make(state, session)
    key = pending(session, row)
    session.execute(
        sa.update(Lane)
        .where(Lane.subscription_id == row.id)
        .values(failures=7, paused_until=datetime.now(UTC))
    )
    session.commit()

    subscriptions.change(state, session, row.id, SubscriptionInput(active=False), owner="1")
    session.commit()
    assert session.get_one(Delivery, key, populate_existing=True).state == "held"

    with pytest.raises(SubscriptionError) as caught:
        subscriptions.change(state, session, row.id, SubscriptionInput(active=True), owner="1")
    assert "1 delivery is held" in caught.value.fields["held"][0]

    subscriptions.change(state, session, row.id, SubscriptionInput(active=True, held="send"), owner="1")
    session.commit()
    assert session.get_one(Delivery, key, populate_existing=True).state == "pending"
    lane = session.get_one(Lane, row.id, populate_existing=True)
    assert (lane.failures, lane.paused_until) == (0, None)


@pytest.mark.parametrize("act", ["on", "off", "remove"])
def test_the_lane_is_locked_before_the_subscription_as_workers_do(
    state: AppState, session: Session, act: str
) -> None:
    """Else a worker that is just disabling it and this one would wait for each other."""
    row = make(state, session, active=act != "on")
    written: list[str] = []

    def note(connection: t.Any, cursor: t.Any, statement: str, *_: t.Any) -> None:
        found = re.search(r"UPDATE (webhook_\w+)|FROM (webhook_lanes).*FOR UPDATE", statement, re.DOTALL)
        if found:
            written.append(found[1] or found[2])

    sa.event.listen(state.engine, "before_cursor_execute", note)
    if act == "remove":
        subscriptions.remove(state, session, row.id, owner="1")
    else:
        subscriptions.change(state, session, row.id, SubscriptionInput(active=act == "on"), owner="1")
    session.commit()

    assert written.index("webhook_lanes") < written.index("webhook_subscriptions")


def test_discarding_cancels_what_was_held(state: AppState, session: Session) -> None:
    row = make(state, session, active=False)
    key = pending(session, row, State.HELD)

    subscriptions.change(state, session, row.id, SubscriptionInput(active=True, held="discard"), owner="1")
    session.commit()

    found = session.get_one(Delivery, key, populate_existing=True)
    assert (found.state, found.reason) == ("cancelled", "discarded")


def test_removing_keeps_the_row_and_cancels(state: AppState, session: Session) -> None:
    row = make(state, session, headers={"X-Api-Key": "k"})
    key = pending(session, row)

    subscriptions.remove(state, session, row.id, owner="1")
    session.commit()

    removed = session.get_one(Subscription, row.id, populate_existing=True)
    assert removed.deleted_at is not None
    assert {getattr(removed, name) for name in models.SEALED} == {None}
    assert session.scalars(sa.select(Listener)).all() == []
    assert session.scalars(sa.select(models.Secret)).all() == []
    assert session.get_one(Delivery, key, populate_existing=True).state == "cancelled"


def test_the_signal_waits_for_the_commit(app: Flask, state: AppState, session: Session) -> None:
    told: list[str] = []

    def hear(sender: Flask, *, action: str, **_: t.Any) -> None:
        told.append(action)

    with signals.subscription_changed.connected_to(hear, app):
        row, _ = subscriptions.create(
            state,
            session,
            SubscriptionInput(environment="staging", url=URL, events=["invoices.created"]),
            owner="1",
        )
        assert told == []
        session.commit()
        assert told == ["created"]
        subscriptions.change(state, session, row.id, SubscriptionInput(description="x"), owner="1")
        session.rollback()
        session.commit()

    assert told == ["created"]


def test_a_rotation_overlaps_and_ends(state: AppState, session: Session) -> None:
    row = make(state, session)
    now = datetime.now(UTC)
    [(_, first)] = subscriptions.reveal(state, row, now)

    second = subscriptions.rotate(state, session, row, now=now, overlap=timedelta(minutes=5))
    session.commit()
    row = session.get_one(Subscription, row.id, populate_existing=True)

    in_force = [secret.text for _, secret in subscriptions.reveal(state, row, now + timedelta(minutes=4))]
    assert in_force == [second.text, first.text]
    assert [each.text for _, each in subscriptions.reveal(state, row, now + timedelta(minutes=6))] == [
        second.text
    ]


@pytest.mark.parametrize("kind", ["v1", "v1a"])
def test_twenty_overlapping_secrets_each_verify(
    state: AppState, session: Session, inbox: Receiver, kind: t.Literal["v1", "v1a"]
) -> None:
    now = datetime.now(UTC)
    row, first = subscriptions.create(
        state,
        session,
        SubscriptionInput(environment="staging", url=inbox.url(), events=["*"], signature=kind),
        owner="1",
    )
    session.commit()
    more = [subscriptions.rotate(state, session, row, now=now, overlap=timedelta(days=1)) for _ in range(19)]
    session.commit()
    fill(state, [row], 1)

    assert run(state).delivered == 1

    [request] = inbox.requests
    assert len(request.headers["webhook-signature"].split()) == 20
    received = EnvironBuilder(method="POST", headers=request.headers, data=request.body).get_request()
    for secret in (first, *more):
        known = secret.text if kind == "v1" else secret.public
        assert receiving.verify(received, known)["data"] == {"id": 1}
        if kind == "v1":
            Webhook(secret.text).verify(request.body, request.headers)


def test_as_many_secrets_as_may_sign_fit_into_a_header(state: AppState) -> None:
    secrets = [signing.generate("v1a") for _ in range(MOST_SECRETS)]

    header = signing.headers("0" * 36, b"{}", datetime.now(UTC), secrets)["webhook-signature"]

    assert len(f"webhook-signature: {header}\r\n") < 8190  # Apache's, the smallest


def test_a_secret_of_ones_own_must_be_real(state: AppState, session: Session) -> None:
    own = signing.generate(size=24).text

    _, secret = subscriptions.create(
        state, session, SubscriptionInput(environment="staging", url=URL, events=["*"], secret=own), owner="1"
    )
    assert secret.text == own
    for bad in ("whsec_" + "A" * 40 + "=", "whsec_" + "QUJD", "password", "whsk_" + "A" * 43 + "="):
        with pytest.raises(SubscriptionError) as caught:
            subscriptions.create(
                state,
                session,
                SubscriptionInput(environment="staging", url=URL, events=["*"], secret=bad),
                owner="1",
            )
        assert bad not in str(caught.value.fields)
