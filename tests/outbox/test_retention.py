"""Retention: what is purged, and when."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from flask_webhooks import outbox
from flask_webhooks.models import Hour, IdempotentReply, Throttle
from flask_webhooks.state import AppState
from tests.stage import rows_of

NOW = datetime.now(UTC)
MONTH = NOW - timedelta(days=30)


def keep(state: AppState, at: datetime) -> None:
    """Make a row of each kind that is few, of a time."""
    micros = int(at.timestamp() * 1_000_000)
    with state.engine.begin() as connection:
        for model, row in (
            (Hour, {"subscription_id": "00000000-0000-7000-8000-000000000000", "hour": at}),
            (Throttle, {"owner": str(at), "name": "requests", "free_at": micros}),
            (
                IdempotentReply,
                {"owner": "1", "key": str(at), "digest": "", "status": 1, "sealed": "", "created_at": at},
            ),
        ):
            connection.execute(sa.insert(model), row)


@pytest.mark.parametrize(("is_log_only", "rest"), [(False, [2, 1, 1]), (True, [3, 3, 3])])
def test_each_kind_has_an_age_of_its_own(state: AppState, *, is_log_only: bool, rest: list[int]) -> None:
    for age in (timedelta(days=40), timedelta(days=2), -timedelta(hours=1)):
        keep(state, NOW - age)

    assert list(outbox.purge(state.own_engine, MONTH, NOW, is_log_only=is_log_only)) == []

    assert rows_of(state, Hour, Throttle, IdempotentReply) == rest
