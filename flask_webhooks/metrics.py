"""A Prometheus collector, which reads its values from the database at each scrape. Needs the extra `metrics`.

::

    from flask_webhooks.metrics import Collector
    from prometheus_client import REGISTRY

    REGISTRY.register(Collector(app))

It adds no route: the host serves it with its other metrics, and decides who may scrape them. Register it in one
process: every process would report the same values. While the database cannot be reached the scrape fails, which raises
an alarm as well.
"""

from __future__ import annotations

import typing as t

from flask import Flask
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector as Base

from . import outbox
from .outbox import statistics
from .state import state_of
from .worker import is_stalled

__all__ = ["Collector"]

Family = CounterMetricFamily | GaugeMetricFamily


class Collector(Base):
    """The webhooks of one app, for a registry of prometheus-client."""

    def __init__(self, app: Flask) -> None:
        self._state = state_of(app)

    def describe(self) -> t.Iterable[Family]:
        """Describe nothing at registration: the database need not be reachable when the app starts."""
        return ()

    def collect(self) -> t.Iterator[Family]:
        """Read the values and yield the families; costs as much as `flask webhooks status`."""
        ours = self._state.settings.sent_environments
        with self._state.own_engine.connect() as connection:
            now = outbox.now(connection)
            waiting = [row.due_at for row in outbox.backlog(connection, now, ours)]
            others = sum(each.deliveries for each in outbox.elsewhere(connection, ours))
            alive = sum(not is_stalled(row.seen_at, now) for row in outbox.workers(connection))
            counts = statistics.counts_of_hour(connection, now)
            broken = outbox.broken(connection)
        due = [moment for moment in waiting if moment <= now]
        lag = (now - min(due)).total_seconds() if due else 0.0
        yield _gauge("lag_seconds", "How long the first delivery that is due has been waiting.", lag)
        yield _gauge("lanes_due", "Subscriptions with a delivery that is due.", len(due))
        yield _gauge(
            "lanes_waiting", "Subscriptions with a pending delivery, retries included.", len(waiting)
        )
        yield _gauge(
            "elsewhere", "Pending deliveries of environments that this app does not send for.", others
        )
        yield _gauge(
            "broken_messages", "Messages whose data could not be rendered; they wait for repair.", broken
        )
        yield _gauge("workers", "Workers with a heartbeat.", alive)
        yield _gauge("enabled", "0 while the stop switch is on.", float(self._state.settings.enabled))
        yield _ownerless(self._state.ownerless)
        yield _unrecorded(self._state.unrecorded)
        yield _attempts(counts)
        text = "Deliveries that ended, by how. Begins at 0 each hour; rate() takes that for a restart."
        ended = CounterMetricFamily("webhooks_deliveries", text, labels=["state"])
        for name in ("delivered", "failed"):
            ended.add_metric([name], counts[name])
        yield ended


def _attempts(counts: t.Mapping[str, int]) -> CounterMetricFamily:
    text = "Attempts by outcome. Begins at 0 each hour; rate() takes that for a restart."
    family = CounterMetricFamily("webhooks_attempts", text, labels=["outcome"])
    for name in statistics.OUTCOMES:
        family.add_metric([name], counts[name])
    return family


def _ownerless(counts: t.Mapping[str, int]) -> CounterMetricFamily:
    text = "Events that matched no subscription because their row has no owner, in the scraped process."
    family = CounterMetricFamily("webhooks_ownerless", text, labels=["event"])
    for name, count in sorted(counts.items()):
        family.add_metric([name], count)
    return family


def _unrecorded(counts: t.Mapping[str, int]) -> CounterMetricFamily:
    text = "Commits whose events were not recorded, as no subscription could exist there, in the scraped process."
    family = CounterMetricFamily("webhooks_unrecorded", text, labels=["why"])
    for name in ("tables", "database"):
        family.add_metric([name], counts[name])
    return family


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"webhooks_{name}", text, value=value)
