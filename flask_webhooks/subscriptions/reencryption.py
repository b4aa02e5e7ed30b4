"""Seals every stored secret again, with the first of the encryption keys and for its own row.

Each row is changed by compare-and-set, so workers and the API go on meanwhile, two runs at once do no harm, and a run
that was interrupted is started again. A row that no key decrypts is counted and not changed.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

import sqlalchemy as sa

from ..errors import SecretError
from ..models import SEALED, SECRETS, SUBSCRIPTIONS
from ..signing import place_of

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["Resealed", "reseal"]

Place = tuple[sa.Column[t.Any], t.Any, tuple[sa.Column[t.Any], ...]]
PLACES: tuple[Place, ...] = (
    (SECRETS.c.sealed, "secret", (SECRETS.c.subscription_id, SECRETS.c.id)),
    *((SUBSCRIPTIONS.c[name], place, (SUBSCRIPTIONS.c.id,)) for name, place in SEALED.items()),
)
"""Columns with sealed text (signing secrets, custom headers, client certificates), and the ids that it is bound to."""
BATCH = 200


@dataclass(slots=True)
class Resealed:
    """How many secrets a run has handled."""

    done: int = 0
    unreadable: int = 0


def count(state: AppState) -> int:
    """Return how many rows there are to seal again."""
    with state.own_engine.connect() as connection:
        return sum(
            connection.scalar(sa.select(sa.func.count()).select_from(column.table).where(_is_sealed(column)))
            or 0
            for column, _, _ in PLACES
        )


def reseal(state: AppState) -> t.Iterator[Resealed]:
    """Seal all again; yield the sums after each batch, which is one transaction."""
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
    """Leave out rows without a sealed text."""
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
    # The old text is a condition: a secret that was changed meanwhile is sealed with the first key already.
    update = (
        sa.update(column.table)
        .where(whose[-1] == sa.bindparam("key"), column == sa.bindparam("old"))
        .values({column.name: sa.bindparam("new")})
    )
    with state.own_engine.begin() as connection:
        connection.execute(update, fresh)
    sums.done += len(fresh)
