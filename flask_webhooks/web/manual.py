"""What a caller asks for by hand, by a click or by a request: a test, a retry, a replay.

The law of this room: each of them is counted against the pace of the caller's account before anything is done, and a
transaction that has read ends before one begins that writes, for on SQLite it could not begin to.
"""

from __future__ import annotations

import enum
from datetime import UTC, datetime

from .. import models, replay, subscriptions, throttle
from ..delivery import Subject, send_test_request
from .context import RequestContext

__all__ = ["Retried", "cancel_delivery", "count_replay", "retry", "send_test", "start_replay", "stop_replay"]


class Retried(enum.Enum):
    """What became of a retry."""

    DUE = "it is due now"
    BROKEN = "its data could not be rendered, so there is nothing to send"
    SWITCHED_OFF = "its subscription is switched off"


def send_test(context: RequestContext, subscription_id: str, subject: Subject, format: str | None) -> str:
    """Send a test request in this thread and return the id of its delivery. Commits.

    :param format: what the subscription asked for; None: what the event's own is.
    :raises PayloadError: there is nothing that could be sent.
    :raises ThrottledError: others are under way, or there were many.
    """
    limit = context.state.settings.manual_timeout
    with throttle.turn(context.state, context.session, context.account):
        delivery_id = send_test_request(context.state, subscription_id, subject, format=format, limit=limit)
    context.session.commit()
    return delivery_id


def retry(context: RequestContext, delivery_id: str, owner: str) -> Retried:
    """Make a delivery due at once: same idempotency key, same bytes, its whole schedule before it.

    :param owner: of the delivery, which may be another one's than the caller's.
    :raises ThrottledError: there were many, or as many of the owner's are not done.
    """
    throttle.count(context.state, context.session, context.account)
    throttle.begin_retry(context.state, context.session, owner, delivery_id)
    connection = context.session.connection()
    if replay.is_broken(connection, delivery_id):
        return Retried.BROKEN
    if not replay.retry(connection, delivery_id, datetime.now(UTC)):
        return Retried.SWITCHED_OFF
    subscriptions.afterwards(context.session, context.state.bell.ring)
    return Retried.DUE


def cancel_delivery(context: RequestContext, delivery_id: str) -> bool:
    """Call a delivery off; say whether it is cancelled now."""
    context.session.rollback()
    return replay.cancel(context.session.connection(), delivery_id, datetime.now(UTC))


def count_replay(context: RequestContext, subscription_id: str, wanted: replay.Filter) -> int:
    """Return how many deliveries a replay would send.

    :raises ThrottledError: that was asked often.
    """
    throttle.count_scan(context.state, context.session, context.account)
    row = subscriptions.find(context.session, subscription_id, owner=context.owner)
    return replay.count(context.session.connection(), row, wanted, replay.listened_to(context.state, row))


def start_replay(context: RequestContext, subscription_id: str, wanted: replay.Filter) -> models.Replay:
    """Begin a replay, or return the one that the same request has begun already.

    :raises SubscriptionError: it is switched off, or another replay of it is running.
    :raises ThrottledError: there were many, or as many of the owner's are not done.
    """
    throttle.count(context.state, context.session, context.account)
    row = subscriptions.find(context.session, subscription_id, owner=context.owner, to_change=True)
    throttle.begin_replay(context.state, context.session, row.owner, row.id)
    found, _is_new = replay.start(context.state, context.session, row, wanted)
    subscriptions.afterwards(context.session, context.state.bell.ring)
    return found


def stop_replay(context: RequestContext, replay_id: str) -> None:
    """Queue no more of a replay."""
    context.session.rollback()
    replay.stop(context.session.connection(), replay_id, datetime.now(UTC))
