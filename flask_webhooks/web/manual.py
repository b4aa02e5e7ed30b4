"""Actions that callers start: a test request, a retry, a replay.

The law of this module: each of them is counted against the rate of the caller's account before anything else happens.
A transaction that has only read is ended before the first write, because on SQLite it may not be able to write.
"""

from __future__ import annotations

import enum
from datetime import UTC, datetime

from .. import models, replay, subscriptions, throttle
from ..delivery import Subject, send_test_request
from .context import RequestContext

__all__ = ["Retried", "cancel_delivery", "count_replay", "retry", "send_test", "start_replay", "stop_replay"]


class Retried(enum.Enum):
    """The outcome of a retry."""

    DUE = "it is due now"
    BROKEN = "its data could not be rendered, so there is nothing to send"
    SWITCHED_OFF = "its subscription is switched off"


def send_test(context: RequestContext, subscription_id: str, subject: Subject, format: str | None) -> str:
    """Send a test request in this thread and return the id of its delivery. Commits.

    :param format: the format of the subscription; None: that of the event.
    :raises PayloadError: the body cannot be made.
    :raises ThrottledError: another test is under way, or the account has made too many requests.
    """
    limit = context.state.settings.manual_timeout
    with throttle.turn(context.state, context.session, context.account):
        delivery_id = send_test_request(context.state, subscription_id, subject, format=format, limit=limit)
    context.session.commit()
    return delivery_id


def retry(context: RequestContext, delivery_id: str, owner: str) -> Retried:
    """Make a delivery due at once: same idempotency key and bytes, its whole schedule again.

    :param owner: that of the delivery; the caller may be an operator.
    :raises ThrottledError: the account has made too many requests, or the owner has too many unfinished retries.
    """
    throttle.count(context.state, context.session, context.account)
    throttle.begin_retry(context.state, context.session, owner, delivery_id)
    connection = context.session.connection()
    if replay.is_broken(connection, delivery_id):
        return Retried.BROKEN
    if not replay.retry(connection, delivery_id, datetime.now(UTC)):
        return Retried.SWITCHED_OFF
    # After the commit: a worker that is woken before it would find nothing due.
    subscriptions.afterwards(context.session, context.state.bell.ring)
    return Retried.DUE


def cancel_delivery(context: RequestContext, delivery_id: str) -> bool:
    """Cancel a delivery; return whether it is cancelled now."""
    context.session.rollback()
    return replay.cancel(context.session.connection(), delivery_id, datetime.now(UTC))


def count_replay(context: RequestContext, subscription_id: str, wanted: replay.Filter) -> int:
    """Return how many deliveries a replay would send.

    :raises ThrottledError: the account has counted too often.
    """
    throttle.count_scan(context.state, context.session, context.account)
    row = subscriptions.find(context.session, subscription_id, owner=context.owner)
    return replay.count(context.session.connection(), row, wanted, replay.listened_to(context.state, row))


def start_replay(context: RequestContext, subscription_id: str, wanted: replay.Filter) -> models.Replay:
    """Begin a replay, or return the running one with the same filter.

    :raises SubscriptionError: the subscription is switched off, or another replay of it is running.
    :raises ThrottledError: the account has made too many requests, or the owner has too many unfinished replays.
    """
    throttle.count(context.state, context.session, context.account)
    row = subscriptions.find(context.session, subscription_id, owner=context.owner, to_change=True)
    throttle.begin_replay(context.state, context.session, row.owner, row.id)
    found, _is_new = replay.start(context.state, context.session, row, wanted)
    subscriptions.afterwards(context.session, context.state.bell.ring)
    return found


def stop_replay(context: RequestContext, replay_id: str) -> None:
    """Stop a replay: no further delivery is queued."""
    context.session.rollback()
    replay.stop(context.session.connection(), replay_id, datetime.now(UTC))
