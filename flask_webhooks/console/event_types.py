"""What the console says about an event type: when it happens, and an example of its body.

The sentences are made from the catalogue's `on`, `when`, `changed` and `ignore`.
"""

from __future__ import annotations

import typing as t

from .. import payload
from ..bindings import BoundChannel
from ..bindings.schema_keys import attribute_of
from ..catalog import Condition, EventType, Kind
from ..reference import example_body, example_data
from .formatting import pretty
from .i18n import _

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["example_text", "occasion"]


def occasion(bound: BoundChannel, event: EventType) -> str:
    """Return one or two sentences, with the names that `data` has. Columns that `data` does not show are not named."""
    if not event.on:
        return _("Sent by the application when it happens.")
    shown = _shown(bound, event)
    text = _conditions(event, shown) or _plain(event)
    if event.changed:
        named = _listed(event.changed, shown)
        # "Only if one of these changes" would be wrong if one of them is not shown.
        if named and event.changed <= shown.keys():
            text += " " + _("Only if one of these changes: %(columns)s.", columns=named)
        else:
            text += " " + _("Only if certain values change.")
    if ignored := _listed(event.ignore, shown):
        text += " " + _("A change of %(columns)s alone does not count.", columns=ignored)
    return text


def _shown(bound: BoundChannel, event: EventType) -> dict[str, str]:
    """Return the names that `data` of an event has for the columns that it contains."""
    schema = bound.schemas.get(event.name)
    if schema is not None:
        fields = schema.dump_fields.items()
        return {attribute_of(name, field): field.data_key or name for name, field in fields}
    plain = bound.plain
    names = () if plain is None else plain.keys if plain.method is None else plain.code
    return {name: name for name in names if name in bound.columns}


def _plain(event: EventType) -> str:
    texts = {
        Kind.CREATED: _("When one is created."),
        Kind.UPDATED: _("When one is changed, or something that belongs to it is."),
        Kind.DELETED: _("When one is deleted."),
        Kind.MOVED_IN: _("When one is moved here from another owner."),
        Kind.MOVED_OUT: _("When one is moved to another owner."),
    }
    return " ".join(texts[kind] for kind in Kind if kind in event.on)


def _conditions(event: EventType, shown: t.Mapping[str, str]) -> str:
    parts = [
        condition_text(shown[name], condition) for name, condition in event.when.items() if name in shown
    ]
    if len(parts) < len(event.when):
        parts.append(_("certain values of it change"))
    return _("When %(conditions)s.", conditions=_(" and ").join(parts)) if parts else ""


def condition_text(column: str, condition: Condition) -> str:
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


def _listed(columns: frozenset[str], shown: t.Mapping[str, str]) -> str:
    return ", ".join(sorted(shown[name] for name in columns if name in shown))


def example_text(
    state: AppState, event: EventType, format: str, environment: str, includes: t.Collection[str] = ()
) -> str:
    """Return an example of the body in a format, indented; the reason if the format fails on it."""
    try:
        data = example_data(state.bound[event.channel], event, includes)
        return pretty(example_body(state, event, format, environment, data))
    except Exception as error:  # a custom format is code of the host, and may raise any exception
        return payload.failed(format, error)
