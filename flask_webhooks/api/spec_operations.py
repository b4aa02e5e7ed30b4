"""One operation in OpenAPI: its parameters, responses and examples, and links to the operations that take its ids."""

from __future__ import annotations

import inspect
import typing as t

import marshmallow as ma

from . import schemas
from .examples import ARGUMENTS
from .operations import OPERATIONS, Operation
from .schemas.fields import UUID

__all__ = ["TAGS", "add_examples", "operation_object"]

Json = dict[str, t.Any]
TAGS = {
    "subscriptions": "Where events are sent, which events, and how each subscription performs.",
    "replays": "Many deliveries sent again, in the background.",
    "messages": "Recorded events, and where each was sent.",
    "deliveries": "The log: one message to one subscription, with every attempt.",
    "catalog": "The channels and events to subscribe to.",
    "description": "This description.",
}


def operation_object(operation: Operation) -> Json:
    """Return the Operation Object of OpenAPI."""
    found: Json = {
        "operationId": operation.name,
        "summary": operation.summary,
        "description": inspect.getdoc(operation.view) or "",
        "tags": [_tag(operation)],
        "x-right": operation.right,
        "parameters": [*_path_parameters(operation), *_headers(operation)],
        "responses": _responses(operation),
    }
    if operation.query is not None:
        found["parameters"].append({"in": "query", "schema": operation.query})
    if operation.body is not None:
        required = any(field.required for field in operation.body().fields.values())
        found["requestBody"] = {
            "required": required,
            "content": {"application/json": {"schema": operation.body}},
        }
    return found


def _tag(operation: Operation) -> str:
    first = operation.path.split("/")[1]
    return first if first in TAGS else "description"


def add_examples(operation: Operation, described: Json, shown: t.Mapping[str, t.Any]) -> None:
    """Add the example of each schema to the places where an operation uses it."""
    if operation.body is not None and operation.body.__name__ in shown:
        described["requestBody"]["content"]["application/json"]["example"] = shown[operation.body.__name__]
    if operation.answer is not None and operation.answer.__name__ in shown:
        for status in ("200", "201", "202"):
            if status in described["responses"]:
                content = described["responses"][status]["content"]
                content["application/json"]["example"] = shown[operation.answer.__name__]
    for parameter in described["parameters"]:
        if parameter.get("name") == "event" and "Event" in shown:
            parameter["example"] = shown["Event"]["name"]


def _path_parameters(operation: Operation) -> list[Json]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": {"type": "string", "pattern": UUID} if name.endswith("_id") else {"type": "string"},
            **({"example": ARGUMENTS[name]} if name in ARGUMENTS else {}),
        }
        for name in operation.arguments
    ]


def _headers(operation: Operation) -> list[Json]:
    found: list[Json] = []
    if operation.is_repeatable:
        found.append(
            {
                "name": "Idempotency-Key",
                "in": "header",
                "description": "A repeated request with the same key within 24 hours is answered like the first.",
                "schema": {"type": "string", "pattern": "^[!-~]([ -~]{0,253}[!-~])?$"},
                "example": "3f1c9a52-7d0e-4c55-9a51-1b2a7f6f9d10",
            }
        )
    if operation.has_version and operation.arguments:
        text = "The ETag that you have read. If the object has another one now, the answer is 412."
        found.append(_tag_header("If-Match", text))
    if operation.has_version and not operation.writes:
        found.append(
            _tag_header(
                "If-None-Match", "The ETag that you have. If the object still has it, the answer is 304."
            )
        )
    return found


def _tag_header(name: str, text: str) -> Json:
    return {"name": name, "in": "header", "description": text, "schema": {"type": "string"}, "example": '"3"'}


def _responses(operation: Operation) -> Json:
    found: Json = {str(operation.status): _success(operation)}
    if operation.name == "replay_subscription":
        # The only operation with two successes: 202 begins a replay.
        found["200"] = {**_success(operation), "description": "With `dry_run`: the count."}
        del found["200"]["links"]
    statuses = {401, 403, 422, 500, *operation.errors}
    if operation.arguments:
        statuses.add(404)
    if operation.writes:
        statuses |= {400, 413, 415}
    if operation.is_repeatable:
        statuses.add(429)
    if operation.has_version and operation.arguments:
        statuses.add(412)
    for status in sorted(statuses):
        found[str(status)] = f"Problem{status}"
    if operation.has_version and not operation.writes:
        found["304"] = {"description": "It has not changed since.", "headers": {"ETag": _ETAG}}
    return found


_RAW = {
    "application/json": {"openapi": "3.1.0"},
    "text/html": "<!doctype html>",
    "text/css": "body { margin: 0 auto }",
    "application/octet-stream": "ok",
}
"""Examples of answers without a schema of ours: their beginnings, by media type."""


def _success(operation: Operation) -> Json:
    found: Json = {"description": operation.summary + "."}
    if operation.status == 204:
        return {"description": "Done."}
    if operation.answer is not None:
        found["content"] = {"application/json": {"schema": operation.answer}}
    elif operation.mimetype is not None:
        kind = {"type": "object"} if operation.mimetype == "application/json" else {"type": "string"}
        found["content"] = {operation.mimetype: {"schema": kind, "example": _RAW[operation.mimetype]}}
    if operation.has_version:
        found["headers"] = {"ETag": _ETAG}
    if operation.is_repeatable:
        found.setdefault("headers", {})["Idempotency-Replayed"] = {
            "description": "`true`: the request with this `Idempotency-Key` was answered before.",
            "schema": {"type": "string", "enum": ["true"]},
        }
    if found_links := _links(operation):
        found["links"] = found_links
    return found


_ETAG: Json = {
    "description": "Its version, for `If-Match`.",
    "required": True,
    "schema": {"type": "string"},
    "example": '"3"',
}


# ---- links -----------------------------------------------------------------------------------------------


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
"""JSON Pointers to the ids in an answer, by its schema and by the name of the path argument."""
_FILTERS = {"subscription_id": "subscription", "message_id": "message"}
"""Query parameters by which `list_deliveries` filters by an id."""


def _links(operation: Operation) -> dict[str, t.Any]:
    """Return the Link Objects of an operation's answer, by the name of the operation that each leads to."""
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
