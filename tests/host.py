"""A small host app for tests: clients, invoices with lines, and attributes that are difficult to capture."""

from __future__ import annotations

import enum
import typing as t
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import marshmallow as ma
import sqlalchemy as sa
from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.mutable import MutableDict
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, registry, relationship

from flask_webhooks import Principal, Webhooks


class Base(DeclarativeBase):
    """Root of the host's models."""

    # MariaDB wants to know how long a text may be.
    registry = registry(
        type_annotation_map={str: sa.String().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")}
    )


db = SQLAlchemy(model_class=Base)


class Status(enum.Enum):
    """Of an invoice."""

    DRAFT = "draft"
    SENT = "sent"
    PAID = "paid"


class Client(db.Model):  # type: ignore[name-defined]
    """Whom invoices are made out to."""

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str]
    name: Mapped[str]
    invoices: Mapped[list[Invoice]] = relationship(back_populates="client")


class Invoice(db.Model):  # type: ignore[name-defined]
    """The model most tests are about."""

    id: Mapped[int] = mapped_column(primary_key=True)
    owner: Mapped[str]
    number: Mapped[str] = mapped_column(default="")
    status: Mapped[Status] = mapped_column(default=Status.DRAFT)
    total: Mapped[Decimal] = mapped_column(sa.Numeric(12, 2), default=Decimal(0))
    note: Mapped[str | None] = mapped_column(default=None)
    extra: Mapped[dict[str, t.Any] | None] = mapped_column(MutableDict.as_mutable(sa.JSON()), default=None)
    updated_at: Mapped[datetime | None] = mapped_column(
        sa.DateTime(timezone=True), default=None, onupdate=lambda: datetime.now(UTC)
    )
    client_id: Mapped[int | None] = mapped_column(sa.ForeignKey("client.id"), default=None)
    client: Mapped[Client | None] = relationship(back_populates="invoices")
    lines: Mapped[list[Line]] = relationship(
        back_populates="invoice", cascade="all, delete-orphan", order_by="Line.id"
    )


class Line(db.Model):  # type: ignore[name-defined]
    """A line of an invoice; a change of it is a change of the invoice."""

    id: Mapped[int] = mapped_column(primary_key=True)
    invoice_id: Mapped[int | None] = mapped_column(sa.ForeignKey("invoice.id", ondelete="CASCADE"))
    text: Mapped[str] = mapped_column(default="")
    amount: Mapped[Decimal] = mapped_column(sa.Numeric(12, 2), default=Decimal(0))
    invoice: Mapped[Invoice | None] = relationship(back_populates="lines")


class Note(db.Model):  # type: ignore[name-defined]
    """In no catalogue."""

    id: Mapped[int] = mapped_column(primary_key=True)
    text: Mapped[str]


class InvoiceSchema(ma.Schema):
    """What the host's own API returns."""

    id = ma.fields.Integer()
    number = ma.fields.String()
    status = ma.fields.Enum(Status, by_value=True)
    total = ma.fields.Decimal(as_string=True, places=2)
    note = ma.fields.String(allow_none=True)
    client_id = ma.fields.Integer(allow_none=True)


class LineSchema(ma.Schema):
    """A line, as an include."""

    id = ma.fields.Integer()
    text = ma.fields.String()
    amount = ma.fields.Decimal(as_string=True, places=2)


CATALOG = Path(__file__).with_name("host.yaml")


def make_host(database_url: str, folder: Path, webhooks: Webhooks | None = None, **config: t.Any) -> Flask:
    """Return an app on an empty database with all tables.

    :param folder: its instance folder.
    :param config: overrides, such as `WEBHOOKS_RETRY`.
    """
    app = Flask("tests.host", instance_path=str(folder / "instance"))
    app.config.update(
        SECRET_KEY="test",
        SQLALCHEMY_DATABASE_URI=database_url,
        WEBHOOKS_CATALOG=str(CATALOG),
        WEBHOOKS_ALLOW_HTTP=True,
        WEBHOOKS_ALLOWED_NETWORKS=["127.0.0.0/8"],
        WEBHOOKS_REDIS_URL="embedded",
        WEBHOOKS_ON_ERROR="raise",  # what goes wrong in a commit shall be seen in the test that made it
    )
    app.config.update(config)
    db.init_app(app)
    hooks = webhooks or Webhooks()
    hooks.init_app(app, db)
    if webhooks is None:
        hooks.principal_loader(load_principal)
    make_tables(app, db)
    return app


def load_principal() -> Principal | None:
    """Whoever the header says, with every right."""
    from flask import request

    owner = request.headers.get("X-Owner")
    return Principal(owner, frozenset({"read", "write", "secrets"})) if owner else None


def make_tables(app: Flask, db: SQLAlchemy) -> None:
    """Make all tables of an app, on SQLite with savepoints that work."""
    with app.app_context():
        if db.engine.dialect.name == "sqlite":
            make_transactional(db.engine)
        # `create_all` would ask for each table, also on a copy that has them all.
        if not db.metadata.tables.keys() <= set(sa.inspect(db.engine).get_table_names()):
            db.create_all()


def make_transactional(engine: sa.Engine) -> None:
    """SQLAlchemy's documented remedy for sqlite3, which else would not begin before a savepoint."""

    @sa.event.listens_for(engine, "connect")
    def connect(connection: t.Any, _: t.Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA busy_timeout=10000")
        connection.execute("PRAGMA foreign_keys=ON")

    @sa.event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        connection.exec_driver_sql("BEGIN")
