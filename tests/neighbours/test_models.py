"""Extensions that change models or commits: Continuum, sqlalchemy-utils, Flask-Marshmallow, Celery."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest
import sqlalchemy as sa
from celery import Celery
from celery.contrib.testing.worker import start_worker
from flask import Flask
from flask_marshmallow import Marshmallow

from flask_webhooks.receiving import Received
from flask_webhooks.state import state_of
from tests.host import CATALOG, Invoice, db
from tests.neighbours import archive
from tests.neighbours.app import beside, live, verified
from tests.receivers import Receiver, ok
from tests.stage import recorded, secret_of, subscribe
from tests.worker.answers import run

in_any_order = pytest.mark.parametrize("is_first", [True, False], ids=["first", "last"])
ma = Marshmallow()


class AutoInvoice(ma.SQLAlchemyAutoSchema):  # type: ignore[misc, name-defined]
    """As a host's API would have it, without links."""

    class Meta:
        model = Invoice
        include_fk = True


@in_any_order
def test_flask_marshmallow_makes_the_schema(tmp_path: Path, is_first: bool) -> None:
    catalog = tmp_path / "webhooks.yaml"
    text = CATALOG.read_text().replace("tests.host:InvoiceSchema", f"{__name__}:AutoInvoice")
    catalog.write_text(text)
    with beside(tmp_path, ma.init_app, is_first=is_first, WEBHOOKS_CATALOG=str(catalog)) as app:
        live(app)
        [message] = recorded(state_of(app))

    data = json.loads(message.data)
    assert (data["number"], data["client_id"]) == ("A-1", None)


# One for all tests: what Celery's workers in threads share in a process would call the task of the first.
celery = Celery("host", broker="memory://", backend="cache+memory://")
served: list[Flask] = []
"""The app of the test that runs, at the end."""
calls: list[str] = []


@celery.task(name="bill", bind=True)  # type: ignore[untyped-decorator]
def bill(task: t.Any) -> int:
    """Make an invoice, as a task of the host."""
    calls.append(task.request.id)
    with served[-1].app_context():
        invoice = Invoice(owner="1", number="A-1")
        db.session.add(invoice)
        db.session.commit()
        return invoice.id


@in_any_order
def test_a_task_of_celery_commits(tmp_path: Path, is_first: bool) -> None:
    calls.clear()

    def commit() -> None:
        with start_worker(celery, perform_ping_check=False, pool="solo"):
            result = bill.delay()
            made = result.get(timeout=60)
        assert calls == [result.id]
        assert made == 1

    with beside(tmp_path, served.append, is_first=is_first) as app:
        live(app, commit)


def test_continuum_and_sqlalchemy_utils_go_on(tmp_path: Path) -> None:
    with archive.opened(tmp_path) as app, Receiver(ok()) as receiver, app.app_context():
        state = state_of(app)
        row = subscribe(state, receiver.url(), "orders.*", includes=["changes"])
        order = archive.Order(owner="1", state="new", mail="Ada@Example.com", pin="1234")
        archive.db.session.add(order)
        archive.db.session.commit()
        order.state = "paid"
        archive.db.session.commit()
        archive.db.session.delete(order)
        archive.db.session.commit()
        versions = archive.db.session.scalars(
            sa.text("SELECT state FROM order_version ORDER BY transaction_id")
        )
        assert list(versions)[:2] == ["new", "paid"]
        archive.db.session.remove()
        assert run(state).delivered == 3
        got: list[Received] = [
            t.cast("Received", verified(each, secret_of(state, row))) for each in receiver.requests
        ]

    got.sort(key=lambda each: each.sequence or 0)  # they were under way at the same time
    assert [each.event for each in got] == ["orders.created", "orders.updated", "orders.deleted"]
    assert "1234" not in str(got)
