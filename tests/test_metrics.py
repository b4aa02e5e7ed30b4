from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from flask import Flask
from prometheus_client import CollectorRegistry, generate_latest

from flask_webhooks import outbox
from flask_webhooks.metrics import Collector
from flask_webhooks.models import Delivery, Hour
from flask_webhooks.outbox.statistics import hour_of
from flask_webhooks.state import AppState
from flask_webhooks.worker import Coordinator
from tests.receivers import Receiver, ok
from tests.stage import fill, subscribe


@pytest.fixture
def registry(app: Flask) -> CollectorRegistry:
    found = CollectorRegistry()
    found.register(Collector(app))
    return found


def test_commits_that_could_not_be_recorded_are_counted_by_why(
    state: AppState, registry: CollectorRegistry
) -> None:
    state.unrecorded["tables"] += 2

    values = {
        why: registry.get_sample_value("webhooks_unrecorded_total", {"why": why})
        for why in ("tables", "database")
    }
    assert values == {"tables": 2, "database": 0}


def test_attempts_and_deliveries_are_counted_by_outcome(
    state: AppState, inbox: Receiver, registry: CollectorRegistry
) -> None:
    with Receiver(ok(status=503)) as broken:
        fill(state, [subscribe(state, inbox.url()), subscribe(state, inbox.url())], 5)
        fill(state, [subscribe(state, broken.url(), retry="none")], 2)
        Coordinator(state, holder="test").run()

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"webhooks_{name}_total", labels)

    assert value("attempts", outcome="ok") == 5
    assert value("attempts", outcome="broken") == 2
    assert value("attempts", outcome="refused") == 0
    assert value("deliveries", state="delivered") == 5
    assert value("deliveries", state="failed") == 2
    with state.engine.begin() as connection:
        connection.execute(sa.update(Hour).values(hour=hour_of(datetime.now(UTC)) - timedelta(hours=1)))
    assert value("attempts", outcome="ok") == 0


def test_lag_and_backlog(state: AppState, registry: CollectorRegistry) -> None:
    assert registry.get_sample_value("webhooks_lag_seconds") == 0
    late, later = (subscribe(state, "http://127.0.0.1:1/") for _ in range(2))
    fill(state, [late], 3)
    fill(state, [later], 1)
    now = datetime.now(UTC)
    with state.engine.begin() as connection:
        for row, due in ((late, now - timedelta(seconds=90)), (later, now + timedelta(hours=1))):
            connection.execute(
                sa.update(Delivery).where(Delivery.subscription_id == row.id).values(due_at=due)
            )

    assert registry.get_sample_value("webhooks_lag_seconds") == pytest.approx(90, abs=10)
    assert registry.get_sample_value("webhooks_lanes_due") == 1
    assert registry.get_sample_value("webhooks_lanes_waiting") == 2


def test_only_workers_that_live_are_counted(state: AppState, registry: CollectorRegistry) -> None:
    now = datetime.now(UTC)
    with state.engine.begin() as connection:
        outbox.heartbeat(connection, "alive", now)
        outbox.heartbeat(connection, "dead", now - timedelta(hours=1))

    assert registry.get_sample_value("webhooks_workers") == 1
    assert registry.get_sample_value("webhooks_enabled") == 1


def test_it_is_text_that_prometheus_reads(registry: CollectorRegistry) -> None:
    text = generate_latest(registry).decode()

    assert "# TYPE webhooks_attempts_total counter" in text
    assert "# TYPE webhooks_lag_seconds gauge" in text
