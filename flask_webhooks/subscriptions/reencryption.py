"""Sealing every stored secret anew, with the first of the encryption keys and for its own row.

Row by row and by compare-and-set: workers and the API go on meanwhile, a second run beside it does no harm, and one
that is broken off is simply begun again. A row that no key opens is counted and left as it is.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

import sqlalchemy as sa

from ..errors import SecretError
from ..models import Secret, Subscription
from ..signing import place_of

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["Resealed", "reseal"]

K, S = (t.cast("sa.Table", model.__table__) for model in (Secret, Subscription))
Place = tuple[sa.Column[t.Any], t.Any, tuple[sa.Column[t.Any], ...]]
PLACES: tuple[Place, ...] = (
    (K.c.sealed, "secret", (K.c.subscription_id, K.c.id)),
    (S.c.headers, "headers", (S.c.id,)),
    (S.c.client_certificate, "certificate", (S.c.id,)),
)
"""Where sealed text stands (signing secrets, custom headers, client certificates), and what says whose it is."""
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
            connection.scalar(sa.select(sa.func.count()).select_from(column.table).where(_is_sealed(column)))
            or 0
            for column, _, _ in PLACES
        )


def reseal(state: AppState) -> t.Iterator[Resealed]:
    """Seal all anew; yield the sums after each batch, which is one transaction."""
    sums = Resealed()
    for place in PLACES:
        column, _, whose = place
        key = whose[-1]
        found = sa.select(*whose, column.label("sealed")).where(_is_sealed(column)).order_by(key).limit(BATCH)
        behind = found
        while True:
            with state.own_engine.connect() as connection:
                rows = connection.execute(behind).all()
            if not rows:
                break
            behind = found.where(key > rows[-1][-2])
            _write(state, place, rows, sums)
            yield sums


def _is_sealed(column: sa.Column[t.Any]) -> sa.ColumnElement[bool]:
    """Not there, or not yet: the answer to a request that is under way is empty."""
    return sa.and_(column.is_not(None), column != "")


def _write(state: AppState, place: Place, rows: t.Sequence[t.Any], sums: Resealed) -> None:
    column, kind, whose = place
    fresh = []
    for *ids, sealed in rows:
        try:
            anew = state.vault.rotate(sealed, place_of(kind, *ids))
            fresh.append({"key": ids[-1], "old": sealed, "new": anew})
        except SecretError:
            sums.unreadable += 1
    if not fresh:
        return
    # Only where it still says what was read: a secret that was changed meanwhile is sealed with the first key already.
    update = (
        sa.update(column.table)
        .where(whose[-1] == sa.bindparam("key"), column == sa.bindparam("old"))
        .values({column.name: sa.bindparam("new")})
    )
    with state.own_engine.begin() as connection:
        connection.execute(update, fresh)
    sums.done += len(fresh)
