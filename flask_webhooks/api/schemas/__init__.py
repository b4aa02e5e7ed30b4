"""The JSON of the management API, as marshmallow schemas: they parse requests, and OpenAPI is made from them.

They check types and shapes. What needs the catalogue, the guard or the database is checked by the room `subscriptions`,
so that the same rules hold for the console and the command line. Instants are ISO 8601 in UTC; durations are seconds.
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
