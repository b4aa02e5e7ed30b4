"""Hourly counts: success is what `outcome` says of a status, and every attempt is counted once."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from flask_webhooks.outbox.statistics import HourlyCounts, Sums
from flask_webhooks.outcome import Failure

NOW = datetime(2026, 1, 5, 12, tzinfo=UTC)


@pytest.mark.parametrize("status", [None, *range(100, 1000, 33)])
def test_an_attempt_succeeded_if_its_status_is_no_failure(status: int | None) -> None:
    counts = HourlyCounts()
    counts.add("one", NOW, status=status, seconds=0.1, state="pending")

    sums = Sums.of(counts.rows())

    is_success = status is not None and Failure.of_status(status) is None
    assert (sums.attempts, sums.succeeded, sums.failed) == (1, int(is_success), int(not is_success))
    assert sums.success_rate == float(is_success)


def test_there_is_no_rate_without_attempts() -> None:
    assert Sums.of([]).success_rate is None
