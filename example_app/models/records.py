"""The database, and what every record has: an id, a tag, an owner and two timestamps."""

from __future__ import annotations

import enum
import typing as t
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal

import sqlalchemy as sa
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy import orm
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from .columns import Exact, UTCDateTime, utc_now


def _values(choices: Iterable[enum.Enum]) -> list[str]:
    return [choice.value for choice in choices]


class Base(DeclarativeBase):
    """What ``db.Model`` is made from.

    The types are given to the registry and not as ``type_annotation_map``: Flask-SQLAlchemy copies this
    class, and SQLAlchemy 2.1 refuses a copy that has both.
    """

    registry = orm.registry(
        # Constraint names are spelled out, so that migrations can find them again.
        metadata=sa.MetaData(
            naming_convention={
                "ix": "ix_%(column_0_N_label)s",
                "uq": "uq_%(table_name)s_%(column_0_N_name)s",
                "ck": "ck_%(table_name)s_%(constraint_name)s",
                "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
                "pk": "pk_%(table_name)s",
            }
        ),
        type_annotation_map={
            str: sa.String(200),
            Decimal: Exact(18, 2),
            datetime: UTCDateTime(),
            # Kept as their values in a plain VARCHAR: a new status needs no ALTER TYPE.
            enum.Enum: sa.Enum(enum.Enum, native_enum=False, length=24, values_callable=_values),
        },
    )


db = SQLAlchemy(model_class=Base)

if t.TYPE_CHECKING:
    Model = Base  # what ``db.Model`` is, where type checkers would only see ``Any``
else:
    Model = db.Model


class TagCounter(Model):
    """The last number given to a tag of one kind in one business. Never counts down, so no tag is reused."""

    __tablename__ = "tag_counters"

    business_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    prefix: Mapped[str] = mapped_column(sa.String(8), primary_key=True)
    last: Mapped[int]


class Inconsistent(Exception):
    """A record's fields contradict each other. ``fields`` maps each to its messages, as marshmallow does."""

    def __init__(self, field: str, message: str) -> None:
        self.fields = {field: [message]}
        super().__init__(message)


def _created_at(context: t.Any) -> datetime:
    """A record that was never changed was last changed when it was created, to the microsecond."""
    return t.cast("datetime", context.get_current_parameters()["created_at"])


class Tagged(Model):
    """A row that people refer to: ``INV-0007`` to them, ``id`` to the machine."""

    __abstract__ = True
    __tag_prefix__: t.ClassVar[str]

    id: Mapped[int] = mapped_column(primary_key=True, sort_order=-4)
    tag: Mapped[str] = mapped_column(sa.String(20), sort_order=-3)
    created_at: Mapped[datetime] = mapped_column(default=utc_now, sort_order=90)
    updated_at: Mapped[datetime] = mapped_column(default=_created_at, onupdate=utc_now, sort_order=91)

    def settle(self) -> None:
        """Bring derived fields in line with the others; refuse what cannot be.

        :raises Inconsistent: when they contradict each other.
        """

    def __repr__(self) -> str:
        state = sa.inspect(self).dict
        return f"<{type(self).__name__} {state.get('tag') or state.get('id') or 'new'}>"


class Record(Tagged):
    """A tagged row that belongs to one business."""

    __abstract__ = True

    @orm.declared_attr
    def business_id(cls) -> Mapped[int]:
        return mapped_column(sa.ForeignKey("business.id"), index=True, sort_order=-2)

    @orm.declared_attr.directive
    def __table_args__(cls) -> tuple[sa.Constraint, ...]:
        return (sa.UniqueConstraint("business_id", "tag"),)


_NEXT_NUMBER = sa.text(
    "INSERT INTO tag_counters (business_id, prefix, last) VALUES (:business_id, :prefix, 1) "
    "ON CONFLICT (business_id, prefix) DO UPDATE SET last = tag_counters.last + 1 RETURNING last"
)


@sa.event.listens_for(Tagged, "before_insert", propagate=True)
def _give_tag(mapper: orm.Mapper[t.Any], connection: sa.Connection, record: Tagged) -> None:
    """Number a new record within its business, in the transaction that inserts it."""
    if record.tag is None:
        prefix = record.__tag_prefix__
        owner = getattr(record, "business_id", 0)  # a business itself is numbered in the whole installation
        number = connection.scalar(_NEXT_NUMBER, {"business_id": owner, "prefix": prefix})
        record.tag = f"{prefix}-{number:04d}"
