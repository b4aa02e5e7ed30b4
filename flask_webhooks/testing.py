"""For the tests of host apps: lists the messages that an action commits, without Redis, HTTP and subscriptions."""

from __future__ import annotations

import contextlib
import json
import typing as t
from dataclasses import dataclass, replace
from datetime import datetime

from flask import Flask, current_app

from . import signals
from .capture import registry_of
from .extension import Webhooks
from .queue import Bell
from .state import state_of

__all__ = ["RecordedMessage", "recorded"]


@dataclass(frozen=True)
class RecordedMessage:
    """A message that was committed."""

    id: str
    """The idempotency key: the header `webhook-id` of each of its deliveries."""
    event: str
    owner: str
    environment: str
    text: str
    data: t.Any
    """The main object as a receiver gets it, without includes."""
    occurred_at: datetime


class _SilentBell(Bell):
    """A doorbell that wakes no worker."""

    def __init__(self) -> None:
        pass

    def ring(self) -> bool:
        return False

    def ring_soon(self) -> None:
        pass


@contextlib.contextmanager
def recorded(webhooks: Webhooks, app: Flask | None = None) -> t.Iterator[list[RecordedMessage]]:
    """Yield the list of messages that are committed inside the block, in order; no subscription is needed.

    ::

        with recorded(webhooks) as messages:
            client.post("/invoices", json=...)
        assert [message.event for message in messages] == ["invoices.created"]

    A schema that raises fails the commit here, whatever `WEBHOOKS_ON_ERROR` says, so that the test shows the error.

    :param app: by default the current app.
    """
    app = app or t.cast("Flask", current_app._get_current_object())  # type: ignore[attr-defined]
    watch = registry_of(state_of(app))
    found: list[RecordedMessage] = []

    def note(_: t.Any, messages: t.Sequence[t.Mapping[str, t.Any]], **__: t.Any) -> None:
        names = ("id", "event", "owner", "environment", "text", "occurred_at")
        found.extend(
            RecordedMessage(**{name: row[name] for name in names}, data=json.loads(row["data"]))
            for row in messages
        )

    before = watch.state
    channels = {name: replace(channel, on_error=None) for name, channel in before.catalog.channels.items()}
    watch.state = replace(
        before,
        settings=replace(before.settings, record="all", on_error="raise"),
        catalog=replace(before.catalog, channels=channels),
        bell=_SilentBell(),
    )
    try:
        with signals.message_recorded.connected_to(note, app):
            yield found
    finally:
        watch.state = before
