"""Matching subscriptions are found by an index, however many there are: shown by the database's plan."""

from __future__ import annotations

from bench.catalogue import EACH, fill, look_up, plan
from flask_webhooks.state import AppState

INDEX = "ix_webhook_listeners_wanted"


def test_the_look_up_reads_one_range_of_one_index(state: AppState) -> None:
    fill(state, 10_000)  # of 1,000 owners

    shown = plan(state, "500")

    assert look_up(state, "500") == EACH
    assert INDEX in shown, shown
    # No table is read as a whole: `SCAN` is SQLite's word, `Seq Scan` PostgreSQL's.
    assert "SCAN webhook" not in shown, shown
    assert "Seq Scan" not in shown, shown


def test_without_the_index_the_plan_is_another(state: AppState) -> None:
    """The test above can fail."""
    fill(state, 1_000)
    with state.engine.begin() as connection:
        connection.exec_driver_sql(f"DROP INDEX {INDEX}")

    assert INDEX not in plan(state, "500")
