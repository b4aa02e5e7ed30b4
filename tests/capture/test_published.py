"""Every body that is sent is valid by the published OpenAPI document, with includes and in every format."""

from __future__ import annotations

from flask_webhooks.state import AppState
from tests.capture import valued_models as models
from tests.capture.conftest import NOWHERE
from tests.host import Client, Invoice, Line, Status, db
from tests.published import are_published
from tests.stage import subscribe


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
