"""Column types: exact decimals, instants in UTC, and the annotations that models are written with."""

from __future__ import annotations

import typing as t
from datetime import UTC, datetime
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy.orm import mapped_column


class Exact(sa.types.TypeDecorator[Decimal]):
    """``NUMERIC(precision, scale)``, also where the database has no such thing.

    SQLite would keep a NUMERIC as a binary float. There the number is kept as an integer of its smallest
    unit (12.50 as 1250), so that sums made by the database stay exact too.
    """

    impl = sa.Numeric
    cache_ok = True

    def __init__(self, precision: int, scale: int) -> None:
        super().__init__(precision, scale)
        self.unit = Decimal(1).scaleb(-scale)

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[t.Any]:
        return sa.BigInteger() if dialect.name == "sqlite" else self.impl_instance

    def process_bind_param(self, value: Decimal | int | None, dialect: sa.Dialect) -> Decimal | int | None:
        if value is None or dialect.name != "sqlite":
            return value
        return int((Decimal(value) / self.unit).to_integral_value())

    def process_result_value(self, value: t.Any, dialect: sa.Dialect) -> Decimal | None:
        if value is None or dialect.name != "sqlite":
            return t.cast("Decimal | None", value)
        return t.cast("int", value) * self.unit


class UTCDateTime(sa.types.TypeDecorator[datetime]):
    """An aware instant, always UTC. A naive one is a bug and is refused."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} has no time zone. Use an aware datetime, such as datetime.now(UTC).")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        # SQLite forgets the zone it was given; what went in was UTC.
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def utc_now() -> datetime:
    """Tell the time: one place for the default of every timestamp column."""
    return datetime.now(UTC)


ZERO = Decimal("0.00")
CENT = Decimal("0.01")

Money = Decimal
"""18 digits, 2 of them after the point: what ``Mapped[Decimal]`` means in this app."""

Rate = t.Annotated[Decimal, mapped_column(Exact(9, 4))]
"""A percentage: 12.5 is twelve and a half per cent."""

Quantity = t.Annotated[Decimal, mapped_column(Exact(12, 3))]

Currency = t.Annotated[str, mapped_column(sa.String(3))]
"""ISO 4217: ``GHS``, ``EUR``."""

Country = t.Annotated[str, mapped_column(sa.String(2))]
"""ISO 3166-1 alpha-2: ``GH``, ``DE``."""

LongText = t.Annotated[str, mapped_column(sa.Text)]


def to_cents(amount: Decimal) -> Decimal:
    """Round half to even, to two places, as every total here is."""
    return amount.quantize(CENT)
