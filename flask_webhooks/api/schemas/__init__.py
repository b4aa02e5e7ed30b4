"""The JSON of the management API, as marshmallow schemas: they parse requests, and OpenAPI is made from them.

They check types and shapes. What needs the catalogue, the guard or the database is checked by the room `subscriptions`,
so that the same rules hold for the console and the command line. Instants are ISO 8601 in UTC; durations are seconds.

===============  ======================================================
`subscriptions`  subscriptions, their secrets and test requests
`log`            messages, deliveries and attempts
`replays`        replays and statistics
`catalog`        channels and events
`problems`       problem details, with every code that one may have
`fields`         fields and base classes that several schemas share
===============  ======================================================
"""

from __future__ import annotations

from .catalog import Catalog, CatalogQuery, Event
from .fields import Instant, PageQuery, Strict
from .log import (
    Attempt,
    AttemptPage,
    Delivery,
    DeliveryPage,
    DeliveryQuery,
    Message,
    MessageDetail,
    MessagePage,
    MessageQuery,
    OneDelivery,
    ResponseQuery,
    Timings,
    Trial,
)
from .problems import FieldProblem, Problem
from .replays import NewReplay, Replay, Stats, StatsQuery
from .subscriptions import (
    CreatedSubscription,
    NewSubscription,
    Rotation,
    Secrets,
    Subscription,
    SubscriptionChange,
    SubscriptionPage,
    SubscriptionQuery,
)

__all__ = [
    "Attempt",
    "AttemptPage",
    "Catalog",
    "CatalogQuery",
    "CreatedSubscription",
    "Delivery",
    "DeliveryPage",
    "DeliveryQuery",
    "Event",
    "FieldProblem",
    "Instant",
    "Message",
    "MessageDetail",
    "MessagePage",
    "MessageQuery",
    "NewReplay",
    "NewSubscription",
    "OneDelivery",
    "PageQuery",
    "Problem",
    "Replay",
    "ResponseQuery",
    "Rotation",
    "Secrets",
    "Stats",
    "StatsQuery",
    "Strict",
    "Subscription",
    "SubscriptionChange",
    "SubscriptionPage",
    "SubscriptionQuery",
    "Timings",
    "Trial",
]
