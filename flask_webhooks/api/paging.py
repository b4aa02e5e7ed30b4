"""What all lists have in common: whose rows are asked for, of which events, and how a page of rows becomes JSON."""

from __future__ import annotations

import typing as t

from ..principal import ALL_OWNERS, Whose
from ..queries.bounds import PAGE, json_size
from ..web import Refused
from .operations import Call

__all__ = ["event_names", "owner_of", "paged"]


def owner_of(call: Call) -> Whose:
    """Return whose rows are asked for: a caller's own, or those that an operator asks for.

    :raises Refused: another owner's, and the caller is no operator.
    """
    asked: str | None = call.query.get("owner")
    if call.owner is ALL_OWNERS:
        return ALL_OWNERS if asked is None else asked
    if asked not in (None, call.owner):
        raise Refused(403, "Only operators may look at other owners.")
    return call.owner


def event_names(call: Call) -> list[str] | None:
    """Return the event types that the query names; None: all.

    An event that is in the catalogue no longer can still be looked for by its whole name.
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
    """Return a page of rows, of which there is one more than `limit` if there is another page.

    :param floor: where the page stopped looking, although it may be short.
    :param room: bytes that its items may have together; of items that are larger it holds one.
    """
    items: list[dict[str, t.Any]] = []
    for row in rows[:limit]:
        item = show(row)
        room -= json_size(item)
        if items and room < 0:
            break
        items.append(item)
    has_more = len(rows) > len(items)
    return {"items": items, "next": cursor(rows[len(items) - 1]) if has_more and items else floor}
