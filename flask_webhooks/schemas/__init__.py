"""The JSON of the management API, as marshmallow schemas: requests are parsed by them, OpenAPI is made from them.

They know types and shapes. What needs the catalogue, the guard or the database is checked in `subscribing`, so that
the console and the command line are held to the same. Instants are ISO 8601 in UTC; durations are seconds.
"""

from __future__ import annotations

from .fields import Instant, Strict
from .problems import FieldProblem, Problem
from .subscriptions import (
    CreatedSubscription,
    NewSubscription,
    Subscription,
    SubscriptionChange,
    SubscriptionPage,
    SubscriptionQuery,
)

__all__ = [
    "CreatedSubscription",
    "FieldProblem",
    "Instant",
    "NewSubscription",
    "Problem",
    "Strict",
    "Subscription",
    "SubscriptionChange",
    "SubscriptionPage",
    "SubscriptionQuery",
]
