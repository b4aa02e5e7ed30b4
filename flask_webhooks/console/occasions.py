"""When an event happens, in words: what the catalogue says in `on`, `when`, `changed` and `ignore`."""

from __future__ import annotations

from ..catalog import Channel, EventType, Kind
from ..catalog.model import Condition
from .words import _

__all__ = ["occasion"]


def occasion(channel: Channel, event: EventType) -> str:
    """Return one or two sentences."""
    if not event.on:
        return _("Sent by the application when it happens.")
    told = _conditions(event) or _plain(channel, event)
    if event.changed:
        told += " " + _("Only if one of these changes: %(columns)s.", columns=_listed(event.changed))
    if event.ignore:
        told += " " + _("A change of only %(columns)s does not count.", columns=_listed(event.ignore))
    return told


def _plain(channel: Channel, event: EventType) -> str:
    texts = {
        Kind.CREATED: _("When one is created."),
        Kind.UPDATED: _("When one is changed, or something that belongs to it."),
        Kind.DELETED: _("When one is deleted."),
        Kind.MOVED_IN: _("When one comes from another owner."),
        Kind.MOVED_OUT: _("When one goes to another owner."),
    }
    return " ".join(texts[kind] for kind in Kind if kind in event.on)


def _conditions(event: EventType) -> str:
    parts = [_condition(column, condition) for column, condition in event.when.items()]
    return _("When %(conditions)s.", conditions=_(" and ").join(parts)) if parts else ""


def _condition(column: str, condition: Condition) -> str:
    if condition.leaves is None and condition.enters is None:
        return _("%(column)s changes", column=column)
    if condition.leaves is None:
        return _("%(column)s becomes %(new)s", column=column, new=_values(condition.enters))
    if condition.enters is None:
        return _("%(column)s stops being %(old)s", column=column, old=_values(condition.leaves))
    return _(
        "%(column)s goes from %(old)s to %(new)s",
        column=column,
        old=_values(condition.leaves),
        new=_values(condition.enters),
    )


def _values(values: tuple[object, ...] | None) -> str:
    return _(" or ").join("null" if value is None else str(value) for value in values or ())


def _listed(columns: frozenset[str]) -> str:
    return ", ".join(sorted(columns))
