"""What the sweep finds in addition to due deliveries: ones whose state does not fit that of their subscription."""

from __future__ import annotations

import logging
import typing as t
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from flask_webhooks import ALL_OWNERS, outbox, subscriptions
from flask_webhooks.models import Delivery, Subscription
from flask_webhooks.state import AppState
from flask_webhooks.subscriptions import SubscriptionInput
from flask_webhooks.worker.maintenance import Maintenance
from tests.host import Client, db
from tests.stage import deliveries, fill, states, subscribe, wait_until

NOWHERE = "http://127.0.0.1:1/"


def later() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


def held(state: AppState, **columns: t.Any) -> Subscription:
    """A subscription for which something is held."""
    row = subscribe(state, NOWHERE, "clients.*", **columns)
    fill(state, [row], 2)
    with state.engine.begin() as connection:
        connection.execute(sa.update(Delivery).values(state="held", due_at=None, reason="off"))
    return row


def test_what_is_held_for_an_active_subscription_is_sent(state: AppState) -> None:
    held(state)

    with Maintenance(state, "test", interval=0.01, wakes=False):
        wait_until(lambda: states(state) == ["pending"] * 2)

    assert all(row.due_at is not None and row.reason is None for row in deliveries(state))


def test_what_is_held_for_one_that_is_off_stays_held(state: AppState) -> None:
    row = held(state, active=False)

    with state.engine.begin() as connection:
        assert outbox.find_inconsistent(connection) == []
        # Switched off between the look and what it leads to.
        assert outbox.reconcile(connection, row.id, row.created_at) == 0

    assert states(state) == ["held"] * 2


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"active": False, "disabled_reason": "gone"}, ("held", "gone")),
        ({"active": False}, ("held", "off")),
        ({"active": False, "deleted_at": datetime.now(UTC)}, ("cancelled", "removed")),
    ],
    ids=["disabled", "off", "removed"],
)
@pytest.mark.parametrize("is_held", [False, True], ids=["pending", "held"])
def test_what_a_switch_has_left_is_seen_to_also_if_it_is_due_later(
    state: AppState, columns: dict[str, t.Any], told: tuple[str, str], is_held: bool
) -> None:
    fill(state, [subscribe(state, NOWHERE, **columns)], outbox.PORTION + 1, due_at=later())
    if is_held:
        with state.engine.begin() as connection:
            connection.execute(sa.update(Delivery).values(state="held", due_at=None, reason=told[1]))
    fill(state, [subscribe(state, NOWHERE)], 1, due_at=later())

    with Maintenance(state, "test", interval=0.01, wakes=False):
        wait_until(lambda: [(row.state, row.reason) for row in deliveries(state)][:-1] == [told] * 1001)

    assert states(state)[-1] == "pending"


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite has one writer at a time
def test_a_commit_that_straddles_switching_on_is_found(state: AppState) -> None:
    row = subscribe(state, NOWHERE, "clients.*", active=False)

    @sa.event.listens_for(state.engine, "commit", once=True)
    def switch_on(connection: sa.Connection) -> None:
        with Session(state.engine, info={"webhooks": False}) as session:
            subscriptions.change(state, session, row.id, SubscriptionInput(active=True), owner=ALL_OWNERS)
            session.commit()

    db.session.add(Client(owner="1", name="Ada"))
    db.session.commit()
    assert states(state) == ["held"]

    with Maintenance(state, "test", interval=0.01, wakes=False):
        wait_until(lambda: states(state) == ["pending"])


def test_a_sign_off_that_fails_is_one_line(state: AppState, caplog: pytest.LogCaptureFixture) -> None:
    def gone(*_: object) -> t.NoReturn:
        raise sa.exc.OperationalError("SELECT", {"name": "vm"}, OSError("gone"), hide_parameters=False)

    with caplog.at_level(logging.WARNING, logger="flask_webhooks"), Maintenance(state, "vm", wakes=False):
        sa.event.listen(state.engine, "do_connect", gone)
        sa.event.listen(state.engine, "begin", gone)
    sa.event.remove(state.engine, "do_connect", gone)
    sa.event.remove(state.engine, "begin", gone)

    [record] = [each for each in caplog.records if each.getMessage() == "worker.sign_off_failed"]
    assert vars(record)["reason"] == "(builtins.OSError) gone"
