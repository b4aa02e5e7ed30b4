"""OpenAPI links: from an answer to the operations that take one of its ids."""

from __future__ import annotations

import typing as t

import marshmallow as ma

from . import schemas
from .operations import OPERATIONS, Operation

__all__ = ["links"]

_PLACES: t.Mapping[type[ma.Schema], t.Mapping[str, str]] = {
    schemas.CreatedSubscription: {"subscription_id": "/id"},
    schemas.Subscription: {"subscription_id": "/id"},
    schemas.SubscriptionPage: {"subscription_id": "/items/0/id"},
    schemas.Replay: {"replay_id": "/id"},
    schemas.OneDelivery: {"delivery_id": "/id", "message_id": "/message_id"},
    schemas.Delivery: {"delivery_id": "/id", "message_id": "/message_id"},
    schemas.DeliveryPage: {"delivery_id": "/items/0/id"},
    schemas.MessageDetail: {"message_id": "/id"},
    schemas.MessagePage: {"message_id": "/items/0/id"},
    schemas.Catalog: {"event": "/channels/0/events/0/name"},
}
"""JSON Pointers to the ids in each kind of answer, by the name of the path argument."""
_FILTERS = {"subscription_id": "subscription", "message_id": "message"}
"""Query parameters by which `list_deliveries` filters by an id."""


def links(operation: Operation) -> dict[str, t.Any]:
    """Return the links of an operation's answer, by the name of the operation that each leads to."""
    places = _PLACES.get(operation.answer, {}) if operation.answer is not None else {}
    found: dict[str, t.Any] = {}
    for target in OPERATIONS:
        taken = {name: name for name in target.arguments}
        if target.name == "list_deliveries":
            taken = {name: query for name, query in _FILTERS.items() if name in places}
        if taken and target is not operation and taken.keys() <= places.keys():
            found[target.name] = {
                "operationId": target.name,
                "description": target.summary + ".",
                "parameters": {query: f"$response.body#{places[name]}" for name, query in taken.items()},
            }
    return found
