"""Blinker signals for the host. Nothing inside the package connects to them.

The sender is always the Flask app. A receiver that raises is logged, and stops neither other receivers nor the work.
Connect lambdas and closures with `weak=False`: otherwise they are collected before the first event.
"""

from __future__ import annotations

import logging
import typing as t

from blinker import NamedSignal, Namespace

__all__ = [
    "delivery_attempted",
    "delivery_delivered",
    "delivery_failed",
    "is_anybody",
    "message_broken",
    "message_recorded",
    "send",
    "subscription_changed",
    "subscription_disabled",
]

logger = logging.getLogger(__name__)
_namespace = Namespace()

message_recorded = _namespace.signal("webhooks-message-recorded")
"""After the commit that recorded messages. Arguments: `messages`, a list of dicts with `id`, `event`, `owner`,
`environment`, `occurred_at`, `text`, `data` (JSON text) and the further columns of `Message`."""

message_broken = _namespace.signal("webhooks-message-broken")
"""After a commit in which schemas failed. Arguments: `messages`, a list of dicts with `id`, `event`, `owner`,
`environment`, `occurred_at`, `entity_id` and `error`, which is for operators: it may show values of the row."""

delivery_attempted = _namespace.signal("webhooks-delivery-attempted")
"""After an attempt was written. Arguments: `delivery_id`, `subscription_id`, `event`, `number`, `status`, `failure`."""

delivery_delivered = _namespace.signal("webhooks-delivery-delivered")
"""After a delivery succeeded. Arguments: `delivery_id`, `subscription_id`, `event`, `attempts`."""

delivery_failed = _namespace.signal("webhooks-delivery-failed")
"""After the last attempt of a delivery failed. Arguments: `delivery_id`, `subscription_id`, `event`, `reason`."""

subscription_changed = _namespace.signal("webhooks-subscription-changed")
"""After a subscription was created, changed or removed. Arguments: `subscription_id`, `owner`, `action`."""

subscription_disabled = _namespace.signal("webhooks-subscription-disabled")
"""After we disabled a subscription (`health.Reason`). Arguments: `subscription_id`, `owner`, `reason`."""


def is_anybody() -> bool:
    """Whether the host has connected a receiver to any signal that a worker sends."""
    sent = (delivery_attempted, delivery_delivered, delivery_failed, subscription_disabled)
    return any(signal.receivers for signal in sent)


def send(signal: NamedSignal, sender: t.Any, **values: t.Any) -> None:
    """Call every receiver of `signal`, and log those that raise; blinker itself would stop at the first."""
    if not signal.receivers:
        return
    for receiver in signal.receivers_for(sender):
        try:
            receiver(sender, **values)
        except Exception:
            logger.exception("signal.receiver_failed", extra={"signal": signal.name})
