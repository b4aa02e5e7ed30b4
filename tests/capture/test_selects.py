"""A SELECT of the host's does what it does without the extension, whose listeners SQLAlchemy calls for it as well."""

from __future__ import annotations

import typing as t

import pytest
import sqlalchemy as sa
from flask import Flask
from sqlalchemy import orm

from tests.host import Client, Invoice, db

LOADERS: t.Mapping[str, t.Any] = {
    "selectin": orm.selectinload(Client.invoices),
    "selectin twice": orm.selectinload(Client.invoices).selectinload(Invoice.client),
    "immediate": orm.immediateload(Client.invoices),
    "lazy": orm.lazyload(Client.invoices),
}
OPTIONS: t.Mapping[str, dict[str, t.Any]] = {
    "yield_per": {"yield_per": 2},
    "populate_existing": {"populate_existing": True},
    "no autoflush": {"autoflush": False},
    "both": {"yield_per": 2, "autoflush": False},
}


@pytest.fixture(autouse=True)
def _clients(app: Flask) -> None:
    db.session.add_all(
        Client(owner="1", name=name, invoices=[Invoice(owner="1", number=f"{name}{n}") for n in range(3)])
        for name in "ABCDE"
    )
    db.session.commit()


def possible(options: dict[str, t.Any]) -> dict[str, t.Any]:
    """Leave out `yield_per` on MariaDB: PyMySQL takes no second statement while it streams the rows of a first."""
    if db.engine.dialect.name in ("mysql", "mariadb"):
        return {name: value for name, value in options.items() if name != "yield_per"}
    return options


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("loader", LOADERS)
def test_relationships_load_with_the_options_of_a_statement(loader: str, options: str) -> None:
    statement = sa.select(Client).options(LOADERS[loader]).order_by(Client.id)

    rows = db.session.execute(statement, execution_options=possible(OPTIONS[options])).scalars()

    assert [sorted(each.number for each in row.invoices) for row in rows] == [
        [f"{name}{n}" for n in range(3)] for name in "ABCDE"
    ]


@pytest.mark.parametrize("loader", LOADERS)
def test_and_with_those_of_a_query(loader: str) -> None:
    query = db.session.query(Client).options(LOADERS[loader]).order_by(Client.id)

    rows = query.yield_per(2) if possible({"yield_per": 2}) else query

    assert [len(row.invoices) for row in rows] == [3] * 5
