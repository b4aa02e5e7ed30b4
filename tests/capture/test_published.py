"""Every body that is sent is valid by the published OpenAPI document, with includes and in every format."""

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
from tests.capture import valued_models as models
from tests.capture.conftest import NOWHERE
from tests.host import Client, Invoice, Line, Status, db
from tests.stage import subscribe


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


def test_bodies_of_schemas(state: AppState) -> None:
    subscribe(state, NOWHERE, "*", includes=["changes", "client", "lines"])
    db.session.add(invoice := Invoice(owner="1", lines=[Line(text="a")]))
    db.session.commit()
    invoice.client, invoice.status, invoice.extra = Client(owner="1", name="x"), Status.SENT, {"a": 1}
    db.session.commit()
    invoice.lines[0].text, invoice.note, invoice.status = "b", "n", Status.PAID
    db.session.commit()
    db.session.delete(invoice)
    db.session.commit()

    assert are_published(state) == {
        *("invoices.created", "invoices.updated", "invoices.sent", "invoices.paid", "invoices.deleted"),
        "clients.created",
    }


def test_bodies_of_columns(valued: AppState) -> None:
    subscribe(valued, NOWHERE, "*", includes=["changes", "animals", "keepers"])
    animal = models.Animal(name="Leo", tags=["a", None], facts={"x": [1]})
    models.db.session.add_all(
        [models.Cage(id=1, keepers=[models.Keeper()], animals=[animal]), models.Dog(breed="x")]
    )
    models.db.session.commit()
    animal.mood, animal.x, animal.tags = models.Mood.TAME, 5, []
    models.db.session.commit()
    models.db.session.delete(animal)
    models.db.session.commit()

    assert are_published(valued) >= {"animals.created", "animals.updated", "animals.deleted", "cages.updated"}
