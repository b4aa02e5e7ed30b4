"""Statements that are compiled once: on a connection that translates schemas they use the translated ones."""

from __future__ import annotations

import dataclasses
import typing as t
from pathlib import Path
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from flask_webhooks.state import AppState
from tests.host import Invoice, db, make_transactional
from tests.stage import deliveries, recorded, subscribe


@pytest.fixture
def tenant(state: AppState, tmp_path: Path, no_other_app: None) -> t.Iterator[AppState]:
    """The app on tables in the schema of a tenant, which has one subscription."""
    own = sa.create_engine(state.engine.url)
    is_file = own.dialect.name == "sqlite"
    schema = "tenant" if is_file else f"{own.url.database}_tenant"
    if is_file:
        make_transactional(own)

        @sa.event.listens_for(own, "connect")
        def attach(connection: t.Any, _: t.Any) -> None:
            connection.execute(f"ATTACH '{tmp_path / 'tenant.sqlite'}' AS tenant")

    else:
        with own.begin() as connection:
            connection.execute(sa.schema.CreateSchema(schema))
    translated = own.execution_options(schema_translate_map={None: schema})
    db.metadata.create_all(translated)
    theirs = dataclasses.replace(
        state, engines=t.cast("t.Any", SimpleNamespace(host=translated, own=translated))
    )
    subscribe(theirs, "http://127.0.0.1:9/", "invoices.*")
    yield theirs
    if not is_file:
        with own.begin() as connection:
            connection.execute(sa.schema.DropSchema(schema, cascade=own.dialect.name == "postgresql"))
    own.dispose()


def test_messages_go_where_the_changes_go(state: AppState, tenant: AppState) -> None:
    with Session(tenant.engine) as session:
        session.add_all(Invoice(id=number, owner="1") for number in (1, 2, 3))
        session.commit()
        session.execute(sa.update(Invoice).where(Invoice.id < 3).values(number="new"))
        session.get_one(Invoice, 3).number = "new"
        session.commit()

    events = [message.event for message in recorded(tenant)]
    assert events == ["invoices.created"] * 3 + ["invoices.updated"] * 3
    assert len(deliveries(tenant)) == 6
    assert recorded(state) == deliveries(state) == []


def test_a_tenant_does_not_hear_of_another(state: AppState, tenant: AppState) -> None:
    with Session(state.engine) as session:
        session.add(Invoice(id=1, owner="1"))
        session.commit()

    assert recorded(state) == recorded(tenant) == []
