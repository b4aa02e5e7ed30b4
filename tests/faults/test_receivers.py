"""Hostile receivers, dead addresses and poisoned rows at once: each gets its reason, the good one its events."""

from __future__ import annotations

import contextlib
import datetime
import email.utils

import pytest
import sqlalchemy as sa

from flask_webhooks.models import Secret
from flask_webhooks.state import AppState
from tests import receivers
from tests.faults.conftest import IS_DEEP, Account, one_database
from tests.processes import Processes
from tests.receivers import Receiver, ok, redirect
from tests.stage import deliveries, fill, subscribe, wait_until

SOON = email.utils.format_datetime(
    datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1), usegmt=True
)
CROWD = {
    "hangs": (receivers.hang, "timeout"),
    "deaf": (receivers.deaf, "timeout"),
    "drips headers": (receivers.drip_headers(), "timeout"),
    "drips body": (receivers.drip_body(), "timeout"),
    "sends 200 MiB": (receivers.flood(), None),
    "gzip bomb": (receivers.gzip_bomb(), None),
    "10,000 headers": (receivers.many_headers(), "too_large"),
    "no HTTP": (receivers.raw(b"SSH-2.0-OpenSSH_9.7\r\n\r\n"), "protocol"),
    "closes early": (receivers.close_early, "connect"),
    "301": (redirect(301, "http://127.0.0.1/"), "redirect"),
    "302": (redirect(302, "http://127.0.0.1/"), "redirect"),
    "307": (redirect(307, "http://127.0.0.1/"), "redirect"),
    "410": (ok(status=410), "gone"),
    "429": (ok(status=429, headers={"Retry-After": "3600"}), "http_4xx"),
    "503": (ok(status=503, headers={"Retry-After": SOON}), "http_5xx"),
}


@one_database
@pytest.mark.parametrize("backlog", [pytest.param(1_000, marks=pytest.mark.deep), 40])
def test_each_gets_its_reason_and_the_good_ones_their_events(
    state: AppState, account: Account, processes: Processes, backlog: int
) -> None:
    found = {}
    with contextlib.ExitStack() as stack:
        for name, (behaviour, reason) in CROWD.items():
            url = stack.enter_context(Receiver(behaviour)).url()
            found[name] = (subscribe(state, url, retry=[3600.0]), reason)
        dead = [subscribe(state, f"http://127.0.0.1:{port}/", retry=[3600.0]) for port in range(1025, 1035)]
        poisoned = subscribe(state, account.receiver.url("/poisoned"), retry=[3600.0])
        with state.engine.begin() as connection:
            broken = sa.update(Secret).where(Secret.subscription_id == poisoned.id).values(sealed="junk")
            connection.execute(broken)
        fill(state, [row for row, _ in found.values()], len(CROWD))
        fill(state, [*dead, poisoned], backlog)
        account.commit(400 if IS_DEEP else 100)
        processes.worker()

        wait_until(lambda: len(account.received) >= len(account.committed), about="the good ones")
        wait_until(lambda: not _untried(state, [row.id for row, _ in found.values()]), 120, about="the crowd")

    assert set(account.received) == set(account.committed)
    states = {row.subscription_id: (row.state, row.reason) for row in deliveries(state)}
    for name, (row, reason) in found.items():
        expected = ("delivered", None) if reason is None else ("pending", reason)
        assert states[row.id] == (("failed", "gone") if reason == "gone" else expected), name
    hints = {row.subscription_id: row.due_at for row in deliveries(state)}
    for name in ("429", "503"):
        assert hints[found[name][0].id] > datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=50)


def _untried(state: AppState, subscriptions: list[str]) -> list[str]:
    return [row.id for row in deliveries(state) if row.subscription_id in subscriptions and not row.attempts]
