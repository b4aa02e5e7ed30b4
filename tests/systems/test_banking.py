"""An open-banking portal (five-systems D): jobs emit the events, and a failed request is not sent again."""

from __future__ import annotations

import typing as t
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa

from flask_webhooks import models
from tests.receivers import Receiver, ok
from tests.stage import deliveries
from tests.systems.conftest import System, opened

FETCHED = {"account_id": 88, "count": 42, "from": "2026-10-01", "to": "2026-10-31"}


@pytest.fixture
def portal(make_system: t.Callable[..., System]) -> System:
    return make_system("banking")


def fetch(portal: System) -> None:
    portal.webhooks.emit("transactions.fetched", FETCHED, owner="1")
    portal.db.session.commit()


def test_event_and_data_and_nothing_else(portal: System, inbox: Receiver) -> None:
    made = portal.subscribe(inbox.url(), "categorizationjob.completed", "transactions.fetched")

    fetch(portal)
    portal.webhooks.emit("categorizationjob.completed", {"job_id": "5f0c", "count": 120}, owner="1")
    portal.db.session.commit()
    portal.deliver()

    bodies = [opened(request, made["secret"]) for request in inbox.requests]
    assert sorted(bodies, key=lambda body: body["event"]) == [
        {"event": "categorizationjob.completed", "data": {"job_id": "5f0c", "count": 120}},
        {"event": "transactions.fetched", "data": FETCHED},
    ]


def test_an_event_of_a_job_that_is_rolled_back_is_none(portal: System, inbox: Receiver) -> None:
    portal.subscribe(inbox.url(), "*")

    portal.webhooks.emit("transactions.fetched", FETCHED, owner="1")
    portal.db.session.rollback()
    portal.db.session.commit()
    portal.deliver()

    assert inbox.requests == []


def test_a_failing_receiver_is_never_called_again(portal: System) -> None:
    with Receiver(ok(b"no", status=500)) as broken:
        portal.subscribe(broken.url(), "transactions.fetched")
        fetch(portal)
        assert portal.deliver().failed == 1

        now = datetime.now(UTC)
        for days in (0, 1, 3, 10, 29):
            report = portal.deliver(now + timedelta(days=days))
            assert (report.delivered, report.failed, report.next_due) == (0, 0, None)

        assert len(broken.requests) == 1
    [delivery] = deliveries(portal.state)
    assert (delivery.state, delivery.due_at, delivery.reason) == ("failed", None, "http_5xx")


def test_the_attempt_is_in_the_log(portal: System) -> None:
    with Receiver(ok(b"no", status=500)) as broken:
        portal.subscribe(broken.url(), "transactions.fetched")
        fetch(portal)
        portal.deliver()

    with portal.state.engine.connect() as connection:
        rows = connection.execute(sa.select(models.Attempt.status, models.Attempt.failure)).all()
    assert [tuple(row) for row in rows] == [(500, "http_5xx")]


def test_nothing_is_recorded_that_the_catalogue_does_not_know(portal: System) -> None:
    from flask_webhooks import UnknownEventError

    with pytest.raises(UnknownEventError, match=r"transactions\.fetched"):
        portal.webhooks.emit("transactions.fetch", FETCHED, owner="1")
