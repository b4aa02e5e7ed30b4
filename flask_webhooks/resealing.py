"""Sealing every stored secret anew, with the first of the encryption keys and for its own row.

Row by row and by compare-and-set: workers and the API go on meanwhile, a second run beside it does no harm, and one
that is broken off is simply begun again. A row that no key opens is counted and left as it is.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

import sqlalchemy as sa

from .errors import SecretError
from .models import Secret, Subscription
from .signing import place_of

if t.TYPE_CHECKING:
    from .state import AppState

__all__ = ["Resealed", "reseal"]

K, S = (t.cast("sa.Table", model.__table__) for model in (Secret, Subscription))
PLACES: tuple[tuple[sa.Table, sa.Column[t.Any], t.Any], ...] = (
    (K, K.c.sealed, "secret"),
    (S, S.c.headers, "headers"),
    (S, S.c.client_certificate, "certificate"),
)
"""Where sealed text stands: signing secrets, custom headers, client certificates."""
BATCH = 200


@dataclass(slots=True)
class Resealed:
    """What was done."""

    done: int = 0
    unreadable: int = 0


def count(state: AppState) -> int:
    """Return how many rows there are to seal anew."""
    with state.own_engine.connect() as connection:
        return sum(
            connection.scalar(sa.select(sa.func.count()).select_from(table).where(_is_sealed(column))) or 0
            for table, column, _ in PLACES
        )


def reseal(state: AppState) -> t.Iterator[Resealed]:
    """Seal all anew; yield the sums after each batch, which is one transaction."""
    sums = Resealed()
    for table, column, kind in PLACES:
        keys = list(table.primary_key)
        found = (
            sa.select(*keys, column.label("sealed")).where(_is_sealed(column)).order_by(*keys).limit(BATCH)
        )
        behind = found
        while True:
            with state.own_engine.connect() as connection:
                rows = connection.execute(behind).all()
            if not rows:
                break
            last = (sa.literal(value, key.type) for key, value in zip(keys, rows[-1], strict=False))
            behind = found.where(sa.tuple_(*keys) > sa.tuple_(*last))
            _write(state, table, column, kind, rows, sums)
            yield sums


def _is_sealed(column: sa.Column[t.Any]) -> sa.ColumnElement[bool]:
    """Not there, or not yet: the answer to a request that is under way is empty."""
    return sa.and_(column.is_not(None), column != "")


def _write(
    state: AppState,
    table: sa.Table,
    column: sa.Column[t.Any],
    kind: t.Any,
    rows: t.Sequence[t.Any],
    sums: Resealed,
) -> None:
    fresh = []
    for row in rows:
        try:
            named = {f"key_{number}": value for number, value in enumerate(row[:-1])}
            fresh.append(
                {**named, "old": row.sealed, "new": state.vault.rotate(row.sealed, place_of(kind, row[0]))}
            )
        except SecretError:
            sums.unreadable += 1
    if not fresh:
        return
    # Only where it still says what was read: a secret that was changed meanwhile is sealed with the first key already.
    is_it = [key == sa.bindparam(f"key_{number}") for number, key in enumerate(table.primary_key)]
    update = (
        sa.update(table)
        .where(*is_it, column == sa.bindparam("old"))
        .values({column.name: sa.bindparam("new")})
    )
    with state.own_engine.begin() as connection:
        connection.execute(update, fresh)
    sums.done += len(fresh)
