"""Sketches to YAML, with comments that teach. What is written is loaded before it is given away."""

from __future__ import annotations

import json
import re
import tempfile
import typing as t
from dataclasses import dataclass
from pathlib import Path

from ..bindings import open_catalog
from ..catalog.format import SCHEMA_ID
from ..errors import CatalogError
from .guessing import Sketch, sketch_all
from .owners import AnyMapper, Tenancy, guess_tenancy

if t.TYPE_CHECKING:
    from flask_sqlalchemy import SQLAlchemy

__all__ = ["Draft", "draft"]

_HEAD = f"""\
# yaml-language-server: $schema={SCHEMA_ID}
#
# Written by `flask webhooks init` from the models of the app; from now on it is yours.
#
# A channel is a stream of events about one model. With its events it makes the event types that your customers
# subscribe to: the channel `invoices` with the event `paid` makes `invoices.paid`. They will build on these names,
# and on the fields of `data`, so now is the time to rename, and to remove what they shall not see.
#
# After each change: `flask webhooks check`. What there is now: `flask webhooks catalog`.
version: 1
title: {{title}}
"""
_EXAMPLE = """\
  examples:                     # a channel without a model: its events come from your code alone
    events:
      happened: {sample: {id: 1}}   # webhooks.emit("examples.happened", data={"id": 1}, owner="42")
"""
_WORDS = frozenset("y n yes no on off true false null".split())
_WIDTH = 108


@dataclass(frozen=True)
class Draft:
    """A catalogue that loads as it is written."""

    text: str
    channels: int
    left_out: int

    @property
    def summary(self) -> str:
        """One line for people."""
        out = f", {self.left_out} left out (see its comments)" if self.left_out else ""
        return f"{self.channels} channel{'' if self.channels == 1 else 's'}{out}."


def draft(db: SQLAlchemy, *, title: str) -> Draft:
    """Return a starter catalogue for all models of `db`."""
    mappers = _mappers(db)
    tenancy = guess_tenancy(mappers)
    sketches = sketch_all(mappers, tenancy)
    head = _head(title, tenancy, sketches, len(mappers))
    reasons = {sketch.name: reason for sketch in sketches if (reason := _reason(sketch))}
    while True:
        text = head + _channels(sketches, reasons, tenancy)
        found = _mistakes(text)
        if not found:
            return Draft(text, len(sketches) - len(reasons), len(reasons))
        reasons |= found


def _mappers(db: SQLAlchemy) -> list[AnyMapper]:
    found = [mapper for mapper in t.cast("t.Any", db.Model).registry.mappers if mapper.inherits is None]
    return sorted(found, key=lambda mapper: (mapper.class_.__module__, mapper.class_.__name__))


def _reason(sketch: Sketch) -> str:
    """Why a channel is left out of the first catalogue; empty if it is not."""
    if sketch.is_link:
        return "It only ties other rows together."
    if sketch.holds_secrets:
        return "Its name sounds like secrets. Name a `schema` that says what may leave the house."
    if sketch.owner is None:
        return "Nothing says whose data it is. Name an attribute or a dotted path with `owner`."
    return ""


def _mistakes(text: str) -> dict[str, str]:
    """Load what was written; return the channels that are refused, and why."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "webhooks.yaml").write_text(text, encoding="utf-8")
        try:
            open_catalog("webhooks.yaml", root=Path(folder))
        except CatalogError as error:
            found: dict[str, str] = {}
            for problem in error.problems:
                if not (name := re.match(r"channels\.(\w+)", problem.path)):
                    raise
                found.setdefault(name[1], f"{problem.message} {problem.remedy}".strip())
            return found
    return {}


# ---- text ------------------------------------------------------------------------------------------------


def _head(title: str, tenancy: Tenancy | None, sketches: t.Sequence[Sketch], count: int) -> str:
    words = re.sub(r"[_.\s]+", " ", title).strip().title() or "Webhooks"
    ignored = sorted({name for sketch in sketches for name in sketch.ignore})
    lines = []
    if tenancy is not None:
        lines += [
            "  # Whose data a row is: only that one's subscriptions hear of it. Your principal_loader returns the",
            f"  # same key. Guessed, because {tenancy.models} of {count} models have this column: is it right?",
            f"  owner: {tenancy.column}",
        ]
    if ignored:
        lines += ["  # An update of nothing but these is no event.", f"  ignore: [{', '.join(ignored)}]"]
    defaults = "\n".join(["", "defaults:", *lines, ""]) if lines else ""
    return _HEAD.format(title=_scalar(words)) + defaults + "\nchannels:\n"


class _Lessons:
    """What the comments have taught already: each thing is told once, where it first occurs."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def once(self, text: str) -> str:
        """Return the text the first time, and nothing from then on."""
        if text in self._told:
            return ""
        self._told.add(text)
        return text


def _channels(sketches: t.Sequence[Sketch], reasons: t.Mapping[str, str], tenancy: Tenancy | None) -> str:
    default = tenancy.column if tenancy is not None else None
    lessons = _Lessons()
    kept = [sketch for sketch in sketches if sketch.name not in reasons]
    parts = [_channel(sketch, default, lessons) for sketch in kept] or [_EXAMPLE]
    if reasons:
        parts.append("  # Left out. To have one of them, mend what is said of it and remove the `#`.\n")
    for sketch in sketches:
        if sketch.name in reasons:
            block = _channel(sketch, default, lessons)
            parts.append("".join(_commented(reasons[sketch.name], block)))
    return "\n" + "\n".join(parts)


def _commented(reason: str, block: str) -> t.Iterator[str]:
    yield from _folded("  # ", " ".join((reason[:1].upper() + reason[1:]).split()))
    for line in block.splitlines():
        yield f"  # {line[2:]}\n"


def _channel(sketch: Sketch, default: str | None, lessons: _Lessons) -> str:
    lines = [f"  {sketch.name}:\n", f"    model: {sketch.model}\n"]
    if sketch.schema is not None:
        lines.append(
            lessons.once("    # The marshmallow schema that makes `data`: the one of your API's own GET.\n")
        )
        lines.append(f"    schema: {sketch.schema}\n")
    else:
        lines.append(lessons.once("    # Without `schema: package.module:Schema` the columns make `data`.\n"))
        lines += _folded("    # data: ", ", ".join(sketch.columns))
        for doubt in sketch.doubts:
            lines += _folded("    # ", doubt)
    if sketch.owner is not None and sketch.owner != default:
        lines.append(
            lessons.once("    # Another one than the default: an attribute, or a dotted path of them.\n")
        )
        lines.append(f"    owner: {sketch.owner}\n")
    lines += _events(sketch, lessons)
    if sketch.includes:
        lines.append(lessons.once("    # What a customer may ask to have added to `data`:\n"))
        lines.append(f"    # includes: [{', '.join(sketch.includes)}]\n")
    if sketch.touches is not None:
        lines.append(lessons.once("    # A change here is an update there as well:\n"))
        lines.append(f"    # touches: [{sketch.touches}]\n")
    return "".join(lines)


def _events(sketch: Sketch, lessons: _Lessons) -> list[str]:
    if sketch.step is None:
        return ["    events: [created, updated, deleted]\n"]
    column, value = sketch.step
    name = re.sub(r"[^a-z0-9_]+", "_", value.lower())[:50].strip("_") or "changed"
    name = f"became_{name}" if name in ("created", "updated", "deleted") else name
    return [
        "    events:\n",
        *(f"      {kind}:\n" for kind in ("created", "updated", "deleted")),
        lessons.once("      # An event of your own: it happens when the column becomes that.\n"),
        f"      # {name}: {{when: {{{column}: {_scalar(value)}}}}}\n",
    ]


def _folded(prefix: str, text: str) -> list[str]:
    lines, line = [], prefix
    for word in text.split(" "):
        if len(line) + len(word) > _WIDTH:
            lines.append(line.rstrip() + "\n")
            line = prefix
        line += f"{word} "
    return [*lines, line.rstrip() + "\n"]


def _scalar(text: str) -> str:
    plain = re.fullmatch(r"[A-Za-z][A-Za-z0-9_ /-]*", text) and text.lower() not in _WORDS
    return text if plain else json.dumps(text, ensure_ascii=False)
