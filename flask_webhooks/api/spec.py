"""The OpenAPI 3.1 document, made from the operations, their schemas and the catalogue."""

from __future__ import annotations

import json
import typing as t
from http import HTTPStatus
from importlib.metadata import version
from weakref import WeakKeyDictionary

from apispec import APISpec
from apispec.ext.marshmallow import MarshmallowPlugin

from ..reference import tags, webhook
from ..state import AppState
from ..web import CODES
from . import schemas
from .examples import examples
from .operations import OPERATIONS
from .schemas.subscriptions import Event, Listener
from .security import schemes
from .spec_operations import TAGS, add_examples, operation_object

__all__ = ["document"]

Json = dict[str, t.Any]
# By state and not by app name: a process may have several apps, and a test makes hundreds.
_made: WeakKeyDictionary[AppState, Json] = WeakKeyDictionary()

REASONS = {
    400: "The request is malformed.",
    401: "The request is not authenticated.",
    403: "A right is missing, or the request does not prove that it comes from this site.",
    404: "It does not exist, or belongs to another owner.",
    409: "It conflicts with the present state.",
    412: "Another request has changed it: `If-Match` names an older version.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    422: "Fields are wrong; `errors` names all of them.",
    429: "The owner has made too many requests, or has too many under way: `Retry-After` says when to try again.",
    500: "The request failed on our side, or a stored secret cannot be decrypted.",
}


MOST = 508 * 1024
"""Bytes of a document without `x-next-after`, so that it stays below 512 KiB with it."""
MOST_NAMES = 16 * 1024
"""Bytes of the names of all events up to which the schemas list them as an `enum`, which they do in seven places."""


def document(state: AppState, root: str, after: str = "", most: int = MOST) -> Json:
    """Return the OpenAPI document of an app, with as many webhooks as fit; the other parts are made once and cached.

    If there are more webhooks, `x-next-after` names the last one of this document: the next one begins after it.

    :param root: the path that the app is mounted at, as the server or proxy passes it (`SCRIPT_NAME`).
    :param after: the event after which the webhooks begin; empty: from the first.
    :param most: bytes of the document.
    """
    if state not in _made:
        _made[state] = _document(state)
    # A path without a host: the client has just reached the host, and the header `Host` can name any.
    made = {**_made[state], "servers": [{"url": f"{root}{state.settings.url_prefix}/api"}]}
    names, known = list(state.catalog.events), _channels(state)
    found = made["webhooks"] = {}
    chosen: dict[str, Json] = {}
    room = most - len(json.dumps(made))
    for name in names[names.index(after) + 1 if after else 0 :]:
        event = state.catalog.events[name]
        hook = {"post": webhook(state, event)}
        tag = known.get(event.channel)
        room -= len(json.dumps({name: hook}))
        room -= len(json.dumps(tag)) if tag and event.channel not in chosen else 0
        if room < 0 and found:  # at least one, so that the next part does not begin at the same event
            made["x-next-after"] = next(reversed(found))
            break
        found[name] = hook
        if tag:
            chosen[event.channel] = tag
    made["tags"] = [*made["tags"], *chosen.values()]
    return made


def _document(state: AppState) -> Json:
    plugin = MarshmallowPlugin(schema_name_resolver=_schema_name)
    known = schemes(state)
    spec = APISpec(
        title=f"{state.catalog.title or state.app.name}: webhooks",
        version=version("flask-webhooks"),
        openapi_version="3.1.0",
        plugins=[plugin],
        info={
            "description": (
                "Subscribe to events, and follow their deliveries. Authenticate as for the rest of this app. Objects "
                "of other owners are answered as if they did not exist. Lists are newest first; `cursor` continues "
                "them. Errors are problem details (RFC 9457)."
            )
        },
        security=[{name: []} for name in known],
        tags=[{"name": name, "description": text} for name, text in TAGS.items()],
    )
    plugin.converter.add_attribute_function(_event_schema)  # type: ignore[union-attr]
    for name, scheme in known.items():
        spec.components.security_scheme(name, scheme)
    spec.components.schema("Listener", schema=Listener)
    spec.components.schema("Problem", schema=schemas.Problem)
    for status, text in REASONS.items():
        spec.components.response(f"Problem{status}", _problem(status, text))
    shown = examples(state)
    for operation in OPERATIONS:
        values = operation_object(operation)
        add_examples(operation, values, shown)
        spec.path(operation.openapi_path, operations={operation.method.lower(): values})
    made: Json = spec.to_dict()
    _name_events(made["components"]["schemas"], state)
    return made


def _channels(state: AppState) -> dict[str, Json]:
    """Return the tags of webhooks by channel; a channel with the name of one of `TAGS` gets that description."""
    return {tag["name"]: tag for tag in tags(state) if tag["name"] not in TAGS}


def _schema_name(schema: t.Any) -> str:
    kind = schema if isinstance(schema, type) else type(schema)
    return kind.__name__


def _event_schema(_: t.Any, field: t.Any, **__: t.Any) -> Json:
    if not isinstance(field, Event):
        return {}
    return {"oneOf": [{"type": "string"}, {"$ref": "#/components/schemas/Listener"}]}


def _name_events(known: Json, state: AppState) -> None:
    """List events, channels and formats as the `enum` of the fields that take one, unless there are too many."""
    channels = [name for name, channel in state.catalog.channels.items() if channel.events]
    patterns = ["*", *(f"{name}.*" for name in channels), *state.catalog.events]
    is_short = len(json.dumps(patterns)) < MOST_NAMES
    if is_short:
        known["Listener"]["properties"]["event"]["enum"] = patterns
    for name in ("NewSubscription", "SubscriptionChange"):
        properties = known[name]["properties"]
        if is_short:
            properties["events"]["items"]["oneOf"][0]["enum"] = patterns
            properties["channels"]["items"]["enum"] = channels
        properties["format"]["enum"] = [*state.formats, None]
        for alias, of in (("to_url", "url"), ("event_types", "events")):
            properties[alias] = {
                **properties[of],
                "description": f"Another name for `{of}`: give one of the two.",
            }
        known[name]["not"] = {
            "anyOf": [{"required": ["url", "to_url"]}, {"required": ["events", "event_types"]}]
        }
    known["NewSubscription"]["anyOf"] = [{"required": ["url"]}, {"required": ["to_url"]}]
    known["NewSubscription"]["required"].remove("url")
    if not known["NewSubscription"]["required"]:
        del known["NewSubscription"]["required"]


def _problem(status: int, text: str) -> Json:
    example: Json = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": text,
        "code": CODES[status],
    }
    if status == 422:
        example["errors"] = [{"field": "events.0", "message": "There is no event 'invoices.create'."}]
    return {
        "description": text,
        "content": {
            "application/problem+json": {
                "schema": {"$ref": "#/components/schemas/Problem"},
                "examples": {CODES[status]: {"value": example}},
            }
        },
    }
