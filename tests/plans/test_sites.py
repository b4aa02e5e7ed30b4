"""Every place of the package that executes a statement is reached by the work that `test_plans` plans and times.

A new one needs a piece of work in `work` or `changes`, or a reason here.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from flask_webhooks.state import state_of
from tests.conftest import new_database, release
from tests.host import make_host
from tests.plans.log import Log
from tests.plans.sites import found_in, met, sites
from tests.plans.work import Scene, load_principal, pieces

pytestmark = pytest.mark.long

ROWS = 400
HOST = "It asks for the host's own rows."
KEY = "By a whole primary key: there is one plan."
OTHER = "Of other databases than PostgreSQL."
SMALL = "Subscriptions alone, by an operator's hand."
UNPLANNED = {
    "api/replays.py:cancel_replay": KEY,
    "api/test_send.py:_row": HOST,
    "replay/backfill.py:Backfill._next_keys": HOST,
    "replay/backfill.py:Backfill._locked_rows": HOST,
    "replay/backfill.py:Backfill.count": HOST,
    "replay/backfill.py:recorded_keys": OTHER,
    "bindings/changes.py:_reached": HOST,
    "bindings/owner_steps.py:rows_led_to": HOST,
    "capture/": HOST + " What is recorded of them `outbox` writes.",
    "checks/certificates.py:check_certificates": SMALL,
    "checks/services.py:_caseless": OTHER,
    "checks/services.py:_narrow": "It asks for a setting.",
    "checks/rows.py:_look": HOST,
    "queries/subscriptions.py:with_certificate": SMALL,
    "cli/replay.py:_follow": KEY,
    "console/replays.py:_find": KEY,
    "web/idempotency.py:Slot._execute": KEY,
    "web/idempotency.py:_forget": KEY,
    "web/idempotency.py:take": KEY,
    "delivery/test_send.py:_write": "Into a database in memory, of one subscription.",
    "outbox/workers.py:subscribed": SMALL,
    "outbox/leases.py:fence": "The same keys as the statement before it; only where somebody else has written.",
    "outbox/leases.py:health": OTHER,
    "outbox/leases.py:lease": OTHER,
    "outbox/leases.py:lock": OTHER,
    "outbox/superseded.py:find_outdated": OTHER,
    "outbox/deliveries.py:select_due": OTHER,
    "outbox/deliveries.py:log": OTHER,
    "outbox/statistics.py:add": OTHER,
    "outbox/recording.py:_count_on": OTHER,
    "outbox/recording.py:_record_once": OTHER,
    "queries/delivery.py:attempt_of": KEY,
    "replay/repair.py:_get": HOST,
    "replay/repair.py:_write": "An INSERT of values.",
    "replay/repair.py:repair_message": KEY,
    "replay/replays.py:_enqueue_batch": KEY,
    "replay/replays.py:find": KEY,
    "subscriptions/joined_session.py:_begin": OTHER,
    "subscriptions/owner_lock.py:_changes": OTHER,
    "throttle.py:_check_places": "Replays of one owner: some tens at most.",
    "throttle.py:_unsent": KEY,
    "throttle.py:place": KEY,
}
"""Places that no piece of work comes along, and why: file and function, or all of a folder."""


def test_every_statement_is_planned(postgres: str, tmp_path: Path) -> None:
    with new_database(postgres) as url:
        app = make_host(url, tmp_path)
        state = state_of(app)
        object.__setattr__(state, "load_principal", load_principal)
        log = Log(state, ROWS)
        log.insert(0, ROWS // 2, "delivered")
        log.insert(ROWS // 2, ROWS, "pending")
        scene = Scene(log, app.test_client(), ROWS)
        with met(state.engine) as places:
            for work in pieces().values():
                work(scene)
        release(app)

    left = [
        site for site in sites() if not any(site.file == file and line in site.lines for file, line in places)
    ]
    reasons = {site: {name for name in UNPLANNED if site.name.startswith(name)} for site in left}
    assert [str(site) for site, names in reasons.items() if not names] == []
    assert not UNPLANNED.keys() - set().union(*reasons.values()), "no reason is needed any more"


def test_a_place_without_a_piece_would_be_seen() -> None:
    source = """
class Thing:
    def look(self, session, connection, cache):
        cache.get("a")
        session.get(Thing, 1)
        connection.execute(
            1
        )
        _SOME.run(connection, [])
"""
    assert [str(site) for site in found_in(source, "a.py")] == [
        f"a.py:{line} Thing.look" for line in (5, 6, 9)
    ]
