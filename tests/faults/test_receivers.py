"""Hostile receivers, dead addresses and invalid rows at once: each has its reason, the good receiver its events."""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import typing as t

import pytest
import sqlalchemy as sa

from flask_webhooks.models import Delivery, Message, Subscription
from flask_webhooks.state import AppState
from tests import receivers
from tests.faults.conftest import IS_DEEP, Account
from tests.processes import Processes
from tests.receivers import Receiver, blackhole, ok, redirect
from tests.stage import attempts, deliveries, fill, subscribe

pytestmark = pytest.mark.long

HOUR = datetime.timedelta(hours=1)
SOON = datetime.datetime.now(datetime.UTC).replace(microsecond=0) + 2 * HOUR
CROWD = {
    "hangs": (receivers.hang, "timeout"),
    "deaf": (receivers.deaf, "timeout"),
    "drips headers": (receivers.drip_headers(), "timeout"),
    "drips body": (receivers.drip_body(), "timeout"),
    "drips chunks": (receivers.drip_body(framing="chunked"), "timeout"),
    "sends 200 MiB": (receivers.flood(), None),
    "gzip bomb": (receivers.gzip_bomb(), None),
    "10,000 headers": (receivers.many_headers(), "too_large"),
    "no HTTP": (receivers.raw(b"SSH-2.0-OpenSSH_9.7\r\n\r\n"), "protocol"),
    "closes early": (receivers.close_early, "connect"),
    "301": (redirect(301, "http://127.0.0.1/"), "redirect"),
    "302": (redirect(302, "http://127.0.0.1/"), "redirect"),
    "307": (redirect(307, "http://127.0.0.1/"), "redirect"),
    "410": (ok(status=410), "gone"),
    "429": (ok(status=429, headers={"Retry-After": "7200"}), "http_4xx"),
    "503": (
        ok(status=503, headers={"Retry-After": email.utils.format_datetime(SOON, usegmt=True)}),
        "http_5xx",
    ),
}
WAIT = [600.0]
"""A schedule that is much shorter than what the receivers ask for, and longer than the test."""
EACH = 5
"""Deliveries for each dead address and poisoned row: more than may be in flight to one subscription."""


class Expected(t.NamedTuple):
    """What must become of the deliveries of one subscription."""

    state: str
    reason: str | None


Ends = dict[str, tuple[Subscription, int, Expected]]
"""Subscriptions, how many deliveries each has, and their end."""


def mistreat(state: AppState, subscription: Subscription, how: str) -> Expected:
    """Break what belongs to a subscription; its schedule is empty, so that nothing is waited for."""
    theirs = Delivery.subscription_id == subscription.id
    message = sa.update(Message).where(Message.id.in_(sa.select(Delivery.message_id).where(theirs)))
    how_to: dict[str, tuple[t.Any, str]] = {
        "a format that raises": (message.values(data="no JSON"), "poison"),
        "a format that is gone": (sa.update(Delivery).where(theirs).values(format="gone"), "unknown_format"),
        "an event that is gone": (message.values(event="reports.gone"), "unknown_event"),
    }
    statement, reason = how_to[how]
    with state.engine.begin() as connection:
        assert connection.execute(statement).rowcount >= 1
    return Expected("failed", reason)


POISONS = (
    "a format that raises",
    "a format that is gone",
    "an event that is gone",
)
"""A secret that no key opens is none of them: that is our own fault, and waits."""


@pytest.mark.parametrize("backlog", [pytest.param(80, marks=pytest.mark.deep), EACH])
def test_each_gets_its_reason_and_the_good_ones_their_events(
    state: AppState, account: Account, processes: Processes, backlog: int
) -> None:
    expected: Ends = {}
    with contextlib.ExitStack() as stack:
        crowd = {name: stack.enter_context(Receiver(behaviour)) for name, (behaviour, _) in CROWD.items()}
        for name, (_, reason) in CROWD.items():
            end = Expected("failed" if reason == "gone" else "pending" if reason else "delivered", reason)
            expected[name] = (_owed(state, crowd[name].url(), 1), 1, end)
        for port in range(1025, 1035):
            url = f"http://127.0.0.1:{port}/"
            expected[url] = (_owed(state, url, backlog), backlog, Expected("pending", "connect"))
        url = f"http://127.0.0.1:{stack.enter_context(blackhole())}/"
        expected[url] = (_owed(state, url, EACH), EACH, Expected("pending", "timeout"))
        for how in POISONS:
            row = _owed(state, account.receiver.url("/poisoned"), backlog, retry="none")
            expected[how] = (row, backlog, mistreat(state, row, how))
        account.commit(400 if IS_DEEP else 100)
        worker = processes.worker()

        account.settle()
        others = {row.id for row, _, _ in expected.values()}
        worker.wait_until(lambda: not _untried(state, others), 300, about="the others")
        account.balance()
        _check_ends(state, expected)
        # Nobody was asked twice.
        assert {name: len(each.requests) for name, each in crowd.items()} == {
            name: 0 if name in ("deaf", "closes early") else 1 for name in CROWD
        }
        assert worker.end() == 0


def _owed(state: AppState, url: str, count: int, retry: t.Any = WAIT) -> Subscription:
    """A subscription for which so many deliveries are due."""
    row = subscribe(state, url, retry=retry)
    fill(state, [row], count)
    return row


def _untried(state: AppState, subscriptions: set[str]) -> list[str]:
    return [row.id for row in deliveries(state) if row.subscription_id in subscriptions and not row.attempts]


def _check_ends(state: AppState, expected: Ends) -> None:
    """Every delivery has ended as expected, is kept, and has its attempt in the log with the same reason."""
    rows, log = deliveries(state), attempts(state)
    for name, (subscription, count, end) in expected.items():
        theirs = [row for row in rows if row.subscription_id == subscription.id]
        assert [(row.state, row.reason) for row in theirs] == [tuple(end)] * count, name
        logged = [row for row in log if row.subscription_id == subscription.id]
        assert sorted(row.delivery_id for row in logged) == sorted(row.id for row in theirs), name
        reason = "http_4xx" if end.reason == "gone" else end.reason
        assert {row.failure for row in logged} == {reason}, name
    (by_seconds, asked), (by_date, _) = (_due(rows, log, expected[name][0]) for name in ("429", "503"))
    assert 2 * HOUR <= by_seconds - asked < 2 * HOUR + datetime.timedelta(seconds=10)
    assert abs(by_date - SOON) < datetime.timedelta(seconds=1)


def _due(
    rows: t.Sequence[Delivery], log: t.Sequence[t.Any], subscription: Subscription
) -> tuple[datetime.datetime, datetime.datetime]:
    """When the one delivery of a subscription is due again, and when it was tried."""
    [row] = [row for row in rows if row.subscription_id == subscription.id]
    [attempt] = [each for each in log if each.delivery_id == row.id]
    assert row.due_at is not None
    return row.due_at, attempt.started_at
