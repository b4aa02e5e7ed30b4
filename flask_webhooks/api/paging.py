"""What all lists share: the owner and the events of their queries, and the JSON of a page of rows."""

from __future__ import annotations

import typing as t

from ..principal import ALL_OWNERS, Whose
from ..queries.bounds import PAGE, json_size
from ..web import Refused
from .operations import Call

__all__ = ["event_names", "owner_of", "paged"]


def owner_of(call: Call) -> Whose:
    """Return the owner whose rows to read: the caller's own, or the one that an operator names in the query.

    :raises Refused: the query names another owner, and the caller is no operator.
    """
    asked: str | None = call.query.get("owner")
    if call.owner is ALL_OWNERS:
        return ALL_OWNERS if asked is None else asked
    if asked not in (None, call.owner):
        raise Refused(403, "Only operators may read the rows of other owners.")
    return call.owner


def event_names(call: Call) -> list[str] | None:
    """Return the event types that match the query's pattern; None: all.

    An event that was removed from the catalogue can still be searched by its full name.
    """
    pattern = call.query.get("event")
    if pattern is None or pattern == "*":
        return None
    return [event.name for event in call.state.catalog.expand(pattern)] or [pattern]


def paged(
    rows: t.Sequence[t.Any],
    limit: int,
    show: t.Callable[[t.Any], dict[str, t.Any]],
    cursor: t.Callable[[t.Any], str] = lambda row: str(row.id),
    floor: str | None = None,
    room: int = PAGE,
) -> dict[str, t.Any]:
    """Return a page of rows as JSON.

    :param rows: at most `limit + 1`; the additional row shows that there is another page.
    :param show: returns the JSON of a row.
    :param cursor: returns the cursor that continues after a row.
    :param floor: the cursor at which the query stopped reading, for a page with fewer rows than `limit`.
    :param room: bytes of all items together; a single larger item makes a page of its own.
    """
    items: list[dict[str, t.Any]] = []
    for row in rows[:limit]:
        item = show(row)
        room -= json_size(item)
        if items and room < 0:  # never before the first row: no cursor would get past it
            break
        items.append(item)
    has_more = len(rows) > len(items)
    return {"items": items, "next": cursor(rows[len(items) - 1]) if has_more and items else floor}
