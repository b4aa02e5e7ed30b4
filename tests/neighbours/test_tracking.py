"""Error trackers and tracing see no secret and no custom header, and receivers get no header of theirs."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

import pytest
import sentry_sdk
import sqlalchemy as sa
from flask import Flask
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sentry_sdk.transport import Transport

from flask_webhooks.models import Subscription
from flask_webhooks.state import state_of
from flask_webhooks.subscriptions import headers
from tests.console.conftest import Visitor
from tests.host import db
from tests.neighbours.app import API, CREDENTIAL, HEADERS, beside, live
from tests.stage import fill, subscribe
from tests.worker.answers import run

in_any_order = pytest.mark.parametrize("is_first", [True, False], ids=["first", "last"])
BODY = {"url": "http://127.0.0.1:9/", "events": ["invoices.*"], "headers": {"X-Partner": CREDENTIAL}}
FORM = {
    "url": "http://127.0.0.1:9/", "description": "Mine", "active": "on", "environment": "staging",
    "signature": "v1", "event": ["invoices.created"], "header_name": "X-Partner", "header_value": CREDENTIAL,
}  # fmt: skip


class Kept(Transport):
    """Sends nothing anywhere."""

    def __init__(self, options: t.Any = None) -> None:
        super().__init__(options)
        self.sent: list[dict[str, t.Any]] = []

    def capture_envelope(self, envelope: t.Any) -> None:
        self.sent += [item.payload.json for item in envelope.items if item.payload.json is not None]

    def errors(self) -> list[dict[str, t.Any]]:
        """Events of exceptions alone."""
        return [each for each in self.sent if "exception" in each]


@pytest.fixture
def sentry() -> t.Iterator[Kept]:
    """Sentry as the most curious host would have it."""
    kept = Kept()
    sentry_sdk.init(
        "https://key@sentry.example/1",
        transport=kept,
        traces_sample_rate=1.0,
        send_default_pii=True,
        attach_stacktrace=True,
        max_request_body_size="always",
    )
    yield kept
    sentry_sdk.init()


def _host(app: Flask) -> None:
    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.add_url_rule("/broken", "broken", lambda: 1 / 0)


@in_any_order
def test_sentry_gets_no_secret(tmp_path: Path, is_first: bool, sentry: Kept) -> None:
    with beside(tmp_path, _host, is_first=is_first) as app:
        state = state_of(app)
        secret = live(app)
        assert app.test_client().get("/broken").status_code == 500
        visitor = Visitor(app)
        visitor.token()
        row = subscribe(state, "http://127.0.0.1:9/")
        sealed = headers.seal(state.vault, {"X-A": CREDENTIAL, "X-B": t.cast("t.Any", 5)}, row.id)
        with state.engine.begin() as connection:
            connection.execute(
                sa.update(Subscription).where(Subscription.id == row.id).values(headers=sealed)
            )
        fill(state, [row], 1)
        with app.app_context():
            run(state)
            db.session.execute(sa.text("DROP TABLE webhook_secrets"))
            db.session.commit()
        assert app.test_client().post(API, json=BODY, headers=HEADERS).status_code == 500
        assert visitor.post("/webhooks/new", FORM).status_code == 500
        sentry_sdk.flush()

    kinds = [each["exception"]["values"][-1]["type"] for each in sentry.errors()]
    assert kinds[:2] == ["ZeroDivisionError", "TypeError"]
    assert kinds.count("OperationalError") == 2
    told = json.dumps(sentry.sent)
    assert "/webhooks/api/subscriptions" in told
    assert CREDENTIAL not in told
    assert secret not in told


@pytest.fixture(scope="module")
def spans() -> t.Iterator[tuple[TracerProvider, InMemorySpanExporter]]:
    """OpenTelemetry as a host would have it; once, for it does not leave engines as it found them."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # It names no SQLAlchemy 2.1 so far.
    SQLAlchemyInstrumentor().instrument(tracer_provider=provider, skip_dep_check=True)
    RequestsInstrumentor().instrument(tracer_provider=provider)
    yield provider, exporter
    RequestsInstrumentor().uninstrument()


@in_any_order
def test_spans_have_no_secret(
    tmp_path: Path, is_first: bool, spans: tuple[TracerProvider, InMemorySpanExporter]
) -> None:
    provider, exporter = spans
    exporter.clear()

    def add(app: Flask) -> None:
        FlaskInstrumentor().instrument_app(app, tracer_provider=provider)

    with beside(tmp_path, add, is_first=is_first) as app:
        secret = live(app)

    told = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert "POST /webhooks/api/subscriptions" in told
    assert "INSERT INTO webhook_messages" in told
    assert CREDENTIAL not in told
    assert secret not in told
    assert "/hook" not in told.replace("/webhooks", "")  # a URL of a receiver may be a secret as a whole
