"""Switching a subscription off and on with more deliveries than one transaction may move."""

from __future__ import annotations

import contextlib
import re
import typing as t
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from flask_webhooks import outbox, subscriptions
from flask_webhooks.cli import webhooks_cli
from flask_webhooks.errors import SubscriptionChangedError, SubscriptionError
from flask_webhooks.models import Delivery, Subscription
from flask_webhooks.shutdown import ShutdownFlag
from flask_webhooks.state import AppState
from flask_webhooks.subscriptions import SubscriptionInput
from flask_webhooks.worker import maintenance
from tests.receivers import Receiver, ok
from tests.stage import deliveries, fill, lane_of, subscribe, wait_until
from tests.worker.answers import Gate, background, run

pytestmark = pytest.mark.long

MANY = outbox.PORTION + 500
NOWHERE = "http://127.0.0.1:1/"


@contextlib.contextmanager
def portions(state: AppState) -> t.Iterator[list[int]]:
    """Yield how many deliveries each transaction has moved."""
    moved = [0]

    def note(connection: t.Any, cursor: t.Any, statement: str, *_: t.Any) -> None:
        if re.match("UPDATE webhook_deliveries", statement):
            moved[-1] += cursor.rowcount

    def end(connection: t.Any) -> None:
        moved.append(0)

    listeners = [("after_cursor_execute", note), ("commit", end), ("rollback", end)]
    for name, listener in listeners:
        sa.event.listen(state.engine, name, listener)
    yield moved
    for name, listener in listeners:
        sa.event.remove(state.engine, name, listener)


def states(state: AppState) -> dict[tuple[str, str | None], int]:
    with state.engine.connect() as connection:
        rows = connection.execute(sa.select(Delivery.state, Delivery.reason))
        return dict(Counter((row.state, row.reason) for row in rows))


def change(state: AppState, subscription: Subscription, **values: t.Any) -> None:
    with Session(state.engine, info={"webhooks": False}) as session:
        subscriptions.change(state, session, subscription.id, SubscriptionInput(**values), owner="1")
        session.commit()


def settle(state: AppState) -> None:
    assert maintenance.reconcile_all(state, ShutdownFlag())


def later() -> datetime:
    return datetime.now(UTC) + timedelta(hours=1)


class TestDisabling:
    def test_what_is_pending_is_held_a_portion_at_a_time(self, state):
        with Receiver(ok(status=410)) as receiver:
            fill(state, [subscribe(state, receiver.url())], MANY)
            with portions(state) as moved:
                run(state)

        failed = len(receiver.requests)
        assert failed <= 4
        assert states(state).keys() == {("failed", "gone"), ("held", "gone")}
        assert max(moved) <= outbox.PORTION

    def test_so_is_what_is_due_later(self, state):
        with Receiver(ok(status=410)) as receiver:
            subscription = subscribe(state, receiver.url())
            fill(state, [subscription], 1)
            fill(state, [subscription], MANY, due_at=later())
            run(state)

        assert states(state) == {("failed", "gone"): 1, ("held", "gone"): MANY}
        assert lane_of(state, subscription).leased_until is None

    def test_the_next_run_goes_on_where_a_worker_was_killed(self, state, inbox):
        off = {"active": False, "disabled_reason": "gone", "disabled_at": datetime.now(UTC)}
        fill(state, [subscribe(state, inbox.url(), **off)], MANY)

        run(state)

        assert states(state) == {("held", "gone"): MANY}
        assert inbox.requests == []

    def test_others_are_delivered_to_meanwhile(self, state, inbox):
        fill(state, [subscribe(state, NOWHERE, active=False)], MANY)
        fill(state, [subscribe(state, inbox.url())], 20)
        held = []
        inbox.behaviour = lambda talk, behave=inbox.behaviour: held.append(states(state)) or behave(talk)

        run(state)

        assert states(state) == {("held", "off"): MANY, ("delivered", None): 20}
        assert ("pending", None) in held[0]

    @pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
    def test_a_portion_that_takes_too_long_is_made_smaller(self, impatient):
        fill(impatient, [subscribe(impatient, NOWHERE, active=False)], 100)
        slowly(impatient, "UPDATE ON webhook_deliveries")

        run(impatient)

        assert states(impatient) == {("held", "off"): 100}


class TestSwitchingByHand:
    @pytest.fixture
    def subscription(self, state) -> Subscription:
        row = subscribe(state, NOWHERE, "*")
        fill(state, [row], MANY)
        return row

    def test_off_holds_a_portion_and_workers_the_rest(self, state, subscription):
        with portions(state) as moved:
            change(state, subscription, active=False)
            assert states(state)["held", "off"] == max(moved) == outbox.PORTION
            settle(state)

        assert states(state) == {("held", "off"): MANY}
        assert max(moved) == outbox.PORTION

    def test_a_worker_that_has_the_lane_sends_only_what_it_has_read(self, state):
        gate = Gate()
        with Receiver(gate) as receiver:
            subscription = subscribe(state, receiver.url(), "*")
            fill(state, [subscription], MANY)
            with background(state, refresh=1000.0) as other:
                wait_until(lambda: gate.held)
                read = other.run.at_hand
                change(state, subscription, active=False)
                gate.opened.set()
                other.wait()

        assert len(receiver.requests) <= read < MANY
        assert set(states(state)) == {("held", "off"), ("delivered", None)}

    @pytest.mark.parametrize(("held", "becomes"), [("send", "pending"), ("discard", "cancelled")])
    def test_on_again_asks_also_of_what_is_still_to_be_held(self, state, subscription, held, becomes):
        change(state, subscription, active=False)
        with pytest.raises(SubscriptionError) as caught:
            change(state, subscription, active=True)
        assert f"{MANY} deliveries are held" in caught.value.fields["held"][0]

        with portions(state) as moved:
            change(state, subscription, active=True, held=held)
            settle(state)

        assert {name for name, _ in states(state)} == {becomes}
        assert max(moved) <= outbox.PORTION

    def test_what_was_held_is_sent_in_the_end(self, state, subscription, inbox):
        change(state, subscription, active=False)
        settle(state)
        change(state, subscription, active=True, held="send", url=inbox.url())
        assert states(state) == {
            ("pending", None): outbox.PORTION,
            ("held", "off"): MANY - outbox.PORTION,
        }

        settle(state)

        assert states(state) == {("pending", None): MANY}
        assert {row.due_at <= datetime.now(UTC) for row in deliveries(state)} == {True}

    def test_discarding_ends_if_another_request_changes_the_subscription(self, state, subscription):
        change(state, subscription, active=False)
        others = [lambda: change(state, subscription, description="another")]
        with Session(state.engine, info={"webhooks": False}) as session:
            sa.event.listen(session, "after_commit", lambda _: others and others.pop()())
            with pytest.raises(SubscriptionChangedError):
                subscriptions.change(
                    state, session, subscription.id, SubscriptionInput(active=True, held="discard"), owner="1"
                )

        assert states(state)["cancelled", "discarded"] == outbox.PORTION
        change(state, subscription, active=True, held="discard")
        assert {name for name, _ in states(state)} == {"cancelled"}

    def test_removing_cancels_a_portion_and_workers_the_rest(self, state, subscription):
        with state.engine.begin() as connection:
            connection.execute(sa.update(Delivery).values(state="held", due_at=None))
        fill(state, [subscription], MANY)
        with portions(state) as moved, Session(state.engine, info={"webhooks": False}) as session:
            subscriptions.remove(state, session, subscription.id, owner="1")
            session.commit()
            assert max(moved) == outbox.PORTION
            settle(state)

        assert states(state) == {("cancelled", "removed"): 2 * MANY}


def test_delivering_once_sends_all_that_was_held_and_holds_all_that_is_not_due(state, inbox):
    on, off = subscribe(state, inbox.url()), subscribe(state, NOWHERE, active=False)
    fill(state, [on], MANY)
    with state.engine.begin() as connection:
        connection.execute(sa.update(Delivery).values(state="held", due_at=None))
    fill(state, [off], MANY, due_at=later())

    result = state.app.test_cli_runner().invoke(webhooks_cli, ["deliver"])

    assert result.exit_code == 0, result.output
    assert states(state) == {("delivered", None): MANY, ("held", "off"): MANY}


def test_off_and_on_by_the_api_during_deliveries_loses_and_repeats_nothing(state):
    client = state.app.test_client()
    with Receiver(Gate(seconds=0.01)) as receiver:
        subscription, other = subscribe(state, receiver.url(), "*"), subscribe(state, receiver.url("/2"))
        ids = fill(state, [subscription], 1_200) + fill(state, [other], 200)
        path = f"/webhooks/api/subscriptions/{subscription.id}"

        def switch(**body: t.Any) -> None:
            answer = client.patch(path, json=body, headers={"X-Owner": "1"})
            assert answer.status_code == 200, answer.text

        for _ in range(2):
            before = len(receiver.requests)
            with background(state, refresh=0.01) as worker:
                wait_until(lambda before=before: len(receiver.requests) >= before + 50)
                switch(active=False)
                switch(active=True, held="send")
                switch(active=False)
                wait_until(lambda worker=worker: not worker.run.at_hand or worker.is_over)
                switch(active=True, held="send")
        settle(state)
        run(state)

        received = [request.headers["webhook-id"] for request in receiver.requests]
    assert sorted(received) == sorted(ids)
    assert states(state) == {("delivered", None): 1_400}


@pytest.fixture
def impatient(state: AppState) -> AppState:
    """An app on a PostgreSQL that breaks off what takes longer than a fifth of a second."""

    @sa.event.listens_for(state.engine, "connect")
    def connect(connection: t.Any, _: t.Any) -> None:
        connection.autocommit = True
        connection.execute("SET statement_timeout = 200")
        connection.autocommit = False

    state.engine.dispose()
    return state


def slowly(state: AppState, what: str) -> None:
    """Make the server take 30 ms for each row."""
    with state.engine.begin() as connection:
        wait = "BEGIN PERFORM pg_sleep(0.03); RETURN NEW; END"
        connection.exec_driver_sql(f"CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS '{wait}'")
        connection.exec_driver_sql(f"CREATE TRIGGER slow BEFORE {what} FOR EACH ROW EXECUTE FUNCTION wait()")


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_batch_that_takes_too_long_is_written_in_smaller_pieces(impatient, caplog):
    slowly(impatient, "INSERT ON webhook_attempts")
    gate = Gate()
    with Receiver(gate) as receiver:
        fill(impatient, [subscribe(impatient, receiver.url(f"/{n}")) for n in range(16)], 16)
        with background(impatient) as other:
            wait_until(lambda: gate.held == 16)
            gate.opened.set()
            report = other.wait()

    assert report.delivered == len(receiver.requests) == 16
    assert states(impatient) == {("delivered", None): 16}
    assert "database.trouble" not in caplog.messages
