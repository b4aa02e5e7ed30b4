"""What must hold between the keys of a channel and of its events.

Each rule is said twice, side by side: as a check with a message for people, and as the JSON Schema fragment
for editors. The tests run both over the same folder of good and bad catalogues.
"""

from __future__ import annotations

import typing as t

from .names import did_you_mean
from .validators import INVALID, Json
from .yaml_reader import Report

KINDS = ("created", "updated", "deleted")
MOVED = ("moved_in", "moved_out")
"""Kinds that are allowed in addition: a row moves from one owner to another."""
EMIT = "emit"
ALSO = {"created": ("created", "updated", "moved_in"), "deleted": ("deleted", "updated", "moved_out")}
"""What an event of that name may happen on in a list: a soft delete is an update."""


def kinds_of(name: str, event: t.Mapping[str, t.Any], *, has_model: bool) -> frozenset[str]:
    """Return what makes an event happen by itself: a subset of `KINDS` and `MOVED`.

    `on` says it; without it the three names say it themselves, and a `when` means an update.
    """
    on = event.get("on")
    if on is None and has_model:
        return frozenset({name} if name in KINDS else {"updated"} if "when" in event else ())
    if on is None or on == EMIT:
        return frozenset()
    return frozenset(kind for kind in ([on] if isinstance(on, str) else on) if kind is not INVALID)


def _events(channel: Json, path: str) -> list[tuple[str, str, Json]]:
    """Return (name, path, what is said) of every event that could be read."""
    events = channel.get("events")
    if isinstance(events, list):
        named: list[tuple[t.Any, str, t.Any]] = [
            (name, f"{path}.events[{at}]", {}) for at, name in enumerate(events)
        ]
    elif isinstance(events, dict):
        named = [(name, f"{path}.events.{name}", event or {}) for name, event in events.items()]
    else:
        return []
    return [(name, where, event) for name, where, event in named if INVALID not in (name, event)]


class HasEvents:
    """A channel has events, or at least touches another; an exclusive one has events."""

    @property
    def schema(self) -> Json:
        some: Json = {"required": ["events"], "properties": {"events": {"minItems": 1, "minProperties": 1}}}
        exclusive = {"required": ["exclusive"], "properties": {"exclusive": {"not": {"const": False}}}}
        return {"anyOf": [some, {"required": ["touches"]}], "if": exclusive, "then": some}

    def check(self, value: Json, path: str, report: Report) -> None:
        if value.get("events"):
            return
        if value.get("exclusive", False) is not False:
            message = "is exclusive but has no events, so no subscription to it is possible."
            report.refuse_at(f"{path}.exclusive", message, 'Add events or remove "exclusive".')
        elif "touches" not in value:
            report.refuse_at(path, "has no events.", 'Add "events": [created, updated, deleted].')


class SaysWhen:
    """On a channel with a model every event says when it happens; without one, none can."""

    @property
    def schema(self) -> Json:
        only_emit = {"properties": {"on": {"const": EMIT}, "when": False, "ignore": False}}
        says: Json = {"type": "object", "anyOf": [{"required": ["on"]}, {"required": ["when"]}]}
        with_model = {
            "items": {"enum": list(KINDS)},
            "properties": dict.fromkeys(KINDS, True),
            "additionalProperties": says,
        }
        return {
            "if": {"required": ["model"]},
            "then": {"properties": {"events": with_model}},
            "else": {"properties": {"events": {"additionalProperties": only_emit}}},
        }

    def check(self, value: Json, path: str, report: Report) -> None:
        for name, where, event in _events(value, path):
            if "model" in value and name not in KINDS and "on" not in event and "when" not in event:
                remedy = f'Add "on" or "when"; or "on: emit" if your code calls emit("{path[9:]}.{name}").'
                remedy = did_you_mean(name, KINDS, remedy)
                report.refuse_at(where, f'"{name}" does not say when it happens.', remedy)
            if "model" in value:
                continue
            for key in ("on", "when", "ignore"):
                if key in event and event[key] != EMIT:
                    remedy = f'Add a "model" to the channel or remove "{key}".'
                    report.refuse_at(f"{where}.{key}", "needs a model whose rows change.", remedy)


class NameFitsOn:
    """`created`, `updated` and `deleted` mean what they say.

    An update may count as a creation or a deletion (a soft delete), if `when` says which update.
    """

    @property
    def schema(self) -> Json:
        names = {kind: self._with_others(kind) if kind in ALSO else self._only(kind) for kind in KINDS}
        return {"properties": {"events": {"properties": names}}}

    def _only(self, kind: str) -> Json:
        return {"properties": {"on": {"enum": [kind, [kind], EMIT]}}}

    def _with_others(self, kind: str) -> Json:
        several = {"type": "array", "contains": {"const": kind}, "items": {"enum": list(ALSO[kind])}}
        an_update: Json = {
            "type": "object",
            "required": ["on"],
            "properties": {"on": {"type": "array", "contains": {"const": "updated"}}},
        }
        on = {"anyOf": [{"enum": [kind, EMIT]}, several]}
        return {"properties": {"on": on}, "if": an_update, "then": {"required": ["when"]}}

    def check(self, value: Json, path: str, report: Report) -> None:
        for name, where, event in _events(value, path):
            on = event.get("on", name)
            if name not in KINDS or on in (name, EMIT, INVALID):
                continue
            kinds = {each for each in on if each is not INVALID} if isinstance(on, list) else {on}
            if name not in kinds or not kinds.issubset(ALSO.get(name, (name,))):
                self._refuse(name, where, report)
            elif name in ALSO and "updated" in kinds and "when" not in event:
                message = f'every update would be called "{name}".'
                report.refuse_at(f"{where}.on", message, 'Say which one with "when", or remove "updated".')

    def _refuse(self, name: str, where: str, report: Report) -> None:
        remedy = 'Remove "on", or give the event another name.'
        if name in ALSO:
            others = f"[{', '.join(ALSO[name][:2])}]"
            remedy = f'Remove "on", write "on: {others}" with a "when", or give the event another name.'
        report.refuse_at(f"{where}.on", f'an event called "{name}" happens on {name}.', remedy)


class UpdateOnly:
    """`ignore`, `changed` and `from` speak of an update; with `on: emit` there are no conditions at all."""

    @property
    def schema(self) -> Json:
        updates = {"anyOf": [{"const": "updated"}, {"type": "array", "contains": {"const": "updated"}}]}
        no_from = {"not": {"type": "object", "required": ["from"]}}
        # `changed` may also be a column with a condition, so it must not have a `from` either.
        changed = {"allOf": [{"not": {"type": "array"}}, no_from]}
        conditions = {"properties": {"changed": changed}, "additionalProperties": no_from}
        static = {"properties": {"ignore": False, "when": conditions}}
        emit_only = {"properties": {"ignore": False, "when": False}}
        says_on: Json = {"type": "object", "required": ["on"]}
        of_any = [
            {"if": says_on | {"properties": {"on": {"not": updates}}}, "then": static},
            {"if": says_on | {"properties": {"on": {"const": EMIT}}}, "then": emit_only},
        ]
        by_itself = {"if": {"required": ["on"]}, "else": static}
        by_name = {"properties": {"created": by_itself, "deleted": by_itself}}
        return {"properties": {"events": {"additionalProperties": {"allOf": of_any}} | {"allOf": [by_name]}}}

    def check(self, value: Json, path: str, report: Report) -> None:
        for name, where, event in _events(value, path):
            if event.get("on") is INVALID or "model" not in value:
                continue
            if event.get("on") == EMIT:
                self._emit(event, where, report)
            elif (kinds := kinds_of(name, event, has_model=True)) and "updated" not in kinds:
                self._static(event, where, " or ".join(sorted(kinds)), report)

    def _emit(self, event: Json, where: str, report: Report) -> None:
        for key in ("when", "ignore"):
            if key in event:
                message = 'has no meaning with "on: emit": your code decides when it happens.'
                report.refuse_at(f"{where}.{key}", message, f'Remove "{key}", or say "on: updated".')

    def _static(self, event: Json, where: str, kinds: str, report: Report) -> None:
        remedy = 'Remove it, or let the event happen "on: updated".'
        message = f"speaks of an update, but the event happens on {kinds}."
        if "ignore" in event:
            report.refuse_at(f"{where}.ignore", message, remedy)
        when = event.get("when")
        for column, condition in when.items() if isinstance(when, dict) else ():
            if column == "changed" and isinstance(condition, list):
                report.refuse_at(f"{where}.when.changed", message, remedy)
            elif isinstance(condition, dict) and "from" in condition:
                report.refuse_at(f"{where}.when.{column}.from", message, remedy)


class OneSource:
    """One thing makes `data`: a schema, a method, some columns, or all but some."""

    _OTHERS: t.ClassVar[t.Mapping[str, tuple[str, ...]]] = {
        "fields": ("schema",),
        "exclude": ("schema", "fields"),
        "data": ("schema", "fields", "exclude"),
        "public": ("schema", "fields", "data"),
    }

    @property
    def schema(self) -> Json:
        refused = {
            key: {"not": {"anyOf": [{"required": [each]} for each in others]}}
            for key, others in self._OTHERS.items()
        }
        return {"dependentSchemas": refused}

    def check(self, value: Json, path: str, report: Report) -> None:
        for key, others in self._OTHERS.items():
            for other in others if key in value else ():
                if other in value:
                    message = f'has no effect together with "{other}", which says all of what is sent.'
                    if "exclude" in (key, other):
                        message = f'has no effect together with "{other}".'
                    report.refuse_at(f"{path}.{key}", message, "Remove one of the two.")


CHANNEL_RULES = (HasEvents(), SaysWhen(), NameFitsOn(), UpdateOnly(), OneSource())
