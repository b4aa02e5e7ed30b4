"""Checks that what was recorded is as the published OpenAPI document says."""

from __future__ import annotations

import json
import typing as t

import jsonschema
import sqlalchemy as sa
from sqlalchemy.orm import Session

from flask_webhooks import reference
from flask_webhooks.delivery.body import body_of
from flask_webhooks.models import Delivery, Message, State
from flask_webhooks.state import AppState


def are_published(state: AppState) -> set[str]:
    """Fail unless the body of every delivery that is not broken is valid; return the events."""
    document = reference.document(state)
    jsonschema.Draft202012Validator.check_schema(t.cast("t.Any", {"$defs": document["webhooks"]}))
    seen = set()
    with Session(state.engine) as session:
        for delivery in session.scalars(sa.select(Delivery).where(Delivery.state != State.BROKEN)):
            event = session.get_one(Message, delivery.message_id).event
            body = body_of(state, session.connection(), delivery)
            assert body.data is not None
            content = document["webhooks"][event]["post"]["requestBody"]["content"]["application/json"]
            jsonschema.Draft202012Validator(content["schema"]).validate(json.loads(body.data))
            seen.add(event)
    return seen
