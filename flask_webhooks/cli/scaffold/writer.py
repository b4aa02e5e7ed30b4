"""Sketches to YAML, with comments that teach. What is written is loaded before it is given away."""

from __future__ import annotations

import json
import re
import tempfile
import typing as t
from dataclasses import dataclass, replace
from pathlib import Path

from ...bindings import open_catalog
from ...catalog import SCHEMA_ID
from ...errors import CatalogError
from .channels import Sketch, sketch_all
from .owners import AnyMapper, Tenancy, candidates, tenancy_of

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
_SAY_IT = "Use --tenant MODEL, or --owner-value KEY for a single owner of all data."
_WORDS = frozenset("y n yes no on off true false null".split())
_WIDTH = 108


@dataclass(frozen=True)
class Draft:
    """A catalogue that loads as it is written."""

    text: str
    channels: int
    left_out: int
    tenancy: Tenancy | None

    @property
    def summary(self) -> str:
        """One line for people."""
        out = f", {self.left_out} left out (see its comments)" if self.left_out else ""
        return f"{self.channels} channel{'' if self.channels == 1 else 's'}{out}."

    @property
    def whose(self) -> str:
        """The owner that was guessed; empty if the user has named one."""
        if self.tenancy is None:
            return f"The owner of the rows could not be determined. {_SAY_IT}"
        if self.tenancy.is_chosen:
            return ""
        return f"Owner: {self.tenancy.name}, a guess. {_SAY_IT}"


Choice: t.TypeAlias = "t.Callable[[t.Sequence[Tenancy], int], Tenancy | str | None]"
"""Asks whose data it is, of candidates and the number of models: one of them, the key of the one owner, or None."""


def draft(
    db: SQLAlchemy,
    *,
    title: str,
    tenant: str | None = None,
    owner_value: str | None = None,
    ask: Choice | None = None,
) -> Draft:
    """Return a starter catalogue for all models of `db`.

    :param tenant: the class whose data it is; else it is asked for, else guessed.
    :param owner_value: the key of the one owner of everything.
    :raises NoTenant: there is no such class.
    """
    mappers = _mappers(db)
    tenancy = _tenancy(mappers, tenant, owner_value, ask)
    sketches = {sketch.name: sketch for sketch in sketch_all(mappers, tenancy)}
    reasons = {name: found for name, sketch in sketches.items() if (found := _reasons(sketch))}
    head = _head(title, tenancy, list(sketches.values()), len(mappers))
    # What is left out is to load too, so all is tried.
    while refused := _mistakes(head + _channels(sketches.values(), {}, tenancy)):
        for name, mistakes in refused.items():
            known = reasons.setdefault(name, [])
            known += [each for each in mistakes if each not in known]
        schemas = {name: sketches[name] for name in refused if sketches[name].schema is not None}
        if not schemas:
            break
        sketches |= {name: replace(sketch, schema=None) for name, sketch in schemas.items()}
    text = head + _channels(sketches.values(), reasons, tenancy)
    return Draft(text, len(sketches) - len(reasons), len(reasons), tenancy)


def _mappers(db: SQLAlchemy) -> list[AnyMapper]:
    found = [mapper for mapper in t.cast("t.Any", db.Model).registry.mappers if mapper.inherits is None]
    return sorted(found, key=lambda mapper: (mapper.class_.__module__, mapper.class_.__name__))


def _tenancy(
    mappers: t.Sequence[AnyMapper], tenant: str | None, owner_value: str | None, ask: Choice | None
) -> Tenancy | None:
    if tenant is not None:
        return replace(tenancy_of(mappers, tenant), is_chosen=True)
    if owner_value is not None:
        return _alone(mappers, owner_value)
    found = candidates(mappers)
    if ask is None:
        others = tuple(f"{each.name} ({len(each.paths)})" for each in found[1:4])
        return replace(found[0], others=others) if found else None
    answer = ask(found, len(mappers))
    if isinstance(answer, str):
        return _alone(mappers, answer)
    return replace(answer, is_chosen=True) if answer is not None else None


def _alone(mappers: t.Sequence[AnyMapper], owner: str) -> Tenancy:
    """One owner for all."""
    said = f"{{value: {json.dumps(owner, ensure_ascii=False)}}}"
    return Tenancy(owner, paths=dict.fromkeys(mappers, said), is_chosen=True)


def _reasons(sketch: Sketch) -> list[str]:
    """Why a channel is left out of the first catalogue: all that is to be said of it."""
    found = []
    if sketch.is_link:
        found.append("It only links other rows.")
    if sketch.holds_secrets:
        found.append("Its name sounds like secrets. Check the fields of `data`, or name a `schema`.")
    if sketch.owner is None:
        found.append(
            "Nothing says whose data it is. Name an attribute or a dotted path with `owner`, or the key of who shall "
            "hear of it."
        )
    return found


def _mistakes(text: str) -> dict[str, list[str]]:
    """Load what was written; return the channels that are refused, and all that is wrong with each."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "webhooks.yaml").write_text(text, encoding="utf-8")
        try:
            open_catalog("webhooks.yaml", root=Path(folder))
        except CatalogError as error:
            found: dict[str, list[str]] = {}
            for problem in error.problems:
                if not (name := re.match(r"channels\.(\w+)", problem.path)):
                    raise
                found.setdefault(name[1], []).append(f"{problem.message} {problem.remedy}".strip())
            return found
    return {}


# ---- text ------------------------------------------------------------------------------------------------


def _head(title: str, tenancy: Tenancy | None, sketches: t.Sequence[Sketch], count: int) -> str:
    words = re.sub(r"[_.\s]+", " ", title).strip().title() or "Webhooks"
    ignored = sorted({name for sketch in sketches for name in sketch.ignore})
    lines = []
    if tenancy is not None:
        lines.append(
            "  # Whose data a row is: only that one's subscriptions hear of it. Your principal_loader returns the"
        )
        lines.append("  # same key.")
        if not tenancy.is_chosen:
            also = f" It might be {', '.join(tenancy.others)} as well." if tenancy.others else ""
            guess = f"Guessed, because {len(tenancy.paths)} of {count} models lead to {tenancy.name}: is it right?"
            lines += [line.rstrip() for line in _folded("  # ", f"{guess}{also} {_SAY_IT}")]
        lines.append(f"  owner: {tenancy.default}")
    if ignored:
        lines += ["  # An update of nothing but these is no event.", f"  ignore: [{', '.join(ignored)}]"]
    defaults = "\n".join(["", "defaults:", *lines, ""]) if lines else ""
    return _HEAD.format(title=_scalar(words)) + defaults + "\nchannels:\n"


class _Lessons:
    """What the comments have explained already: each thing is explained once, where it first occurs."""

    def __init__(self) -> None:
        self._told: set[str] = set()

    def once(self, text: str) -> str:
        """Return the text the first time, and nothing from then on."""
        if text in self._told:
            return ""
        self._told.add(text)
        return text


def _channels(
    sketches: t.Collection[Sketch], reasons: t.Mapping[str, list[str]], tenancy: Tenancy | None
) -> str:
    default = tenancy.default if tenancy is not None else None
    lessons = _Lessons()
    kept = [sketch for sketch in sketches if sketch.name not in reasons]
    parts = [_channel(sketch, default, lessons) for sketch in kept] or [_EXAMPLE]
    if reasons:
        parts.append(
            "  # Left out. Each block loads as it is when one `# ` is removed from all of its lines. Before you do\n"
            "  # that, look at why it was left out.\n"
        )
    for sketch in sketches:
        if sketch.name in reasons:
            block = _channel(sketch, default, lessons)
            parts.append("".join(_commented(reasons[sketch.name], block)))
    return "\n" + "\n".join(parts)


def _commented(reasons: t.Sequence[str], block: str) -> t.Iterator[str]:
    for reason in reasons:
        yield from _folded("  # # ", " ".join((reason[:1].upper() + reason[1:]).split()))
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
        if sketch.private:
            lines.append(lessons.once("    # They sound private; `public` says of one that it is not.\n"))
            lines.append(f"    exclude: [{', '.join(sketch.private)}]\n")
        for doubt in sketch.doubts:
            lines += _folded("    # ", doubt)
    if sketch.owner is None:
        lines.append("    owner: {value: nobody}\n")
    elif sketch.owner != default:
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
