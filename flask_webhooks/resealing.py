"""Sealing every stored secret anew, with the first of the encryption keys.

Row by row and by compare-and-set: workers and the API go on meanwhile, a second run beside it does no harm, and one
that is broken off is simply begun again. A row that no key opens is counted and left as it is.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

import sqlalchemy as sa

from .errors import SecretError
from .models import Secret, Subscription

if t.TYPE_CHECKING:
    from .state import AppState

__all__ = ["Resealed", "reseal"]

K, S = (t.cast("sa.Table", model.__table__) for model in (Secret, Subscription))
PLACES = ((K, K.c.sealed), (S, S.c.headers))
"""Where sealed text stands: signing secrets, and custom headers."""
BATCH = 200


@dataclass(slots=True)
class Resealed:
    """What was done."""

    done: int = 0
    unreadable: int = 0


def count(state: AppState) -> int:
    """Return how many rows there are to seal anew."""
    with state.engine.connect() as connection:
        return sum(
            connection.scalar(sa.select(sa.func.count()).select_from(table).where(column.is_not(None))) or 0
            for table, column in PLACES
        )


def reseal(state: AppState) -> t.Iterator[Resealed]:
    """Seal all anew; yield the sums after each batch, which is one transaction."""
    sums = Resealed()
    for table, column in PLACES:
        last = ""
        while True:
            with state.engine.connect() as connection:
                rows = connection.execute(
                    sa.select(table.c.id, column.label("sealed"))
                    .where(column.is_not(None), *([table.c.id > last] if last else []))
                    .order_by(table.c.id)
                    .limit(BATCH)
                ).all()
            if not rows:
                break
            last = rows[-1].id
            _write(state, table, column, rows, sums)
            yield sums


def _write(
    state: AppState,
    table: sa.Table,
    column: sa.Column[t.Any],
    rows: t.Sequence[t.Any],
    sums: Resealed,
) -> None:
    fresh = []
    for row in rows:
        try:
            fresh.append({"row": row.id, "old": row.sealed, "new": state.vault.rotate(row.sealed)})
        except SecretError:
            sums.unreadable += 1
    if not fresh:
        return
    # Only where it still says what was read: a secret that was changed meanwhile is sealed with the first key already.
    update = (
        sa.update(table)
        .where(table.c.id == sa.bindparam("row"), column == sa.bindparam("old"))
        .values({column.name: sa.bindparam("new")})
    )
    with state.engine.begin() as connection:
        connection.execute(update, fresh)
    sums.done += len(fresh)
