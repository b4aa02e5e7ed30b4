"""The catalogue, everything it names, and what has changed since receivers were promised something."""

from __future__ import annotations

import json
import typing as t
from pathlib import Path

from .. import payload
from ..bindings import BoundChannel, describe, open_catalog
from ..bindings.json_types import mismatch
from ..bindings.schema_keys import names_read
from ..catalog import Catalog, EventType, build_lock, compare, did_you_mean
from ..errors import CatalogError, ConfigurationError, Problem
from ..reference import data_schema
from .findings import Check, Finding, Level

__all__ = ["Opened", "check_catalog", "check_lock", "check_urls", "lock_path"]

Opened = tuple[Catalog, t.Mapping[str, BoundChannel]]


def check_catalog(
    sources: t.Sequence[str], root: Path, formats: t.Collection[str]
) -> tuple[Check, Opened | None]:
    """Report every mistake in the catalogue; also return the catalogue if there is none.

    :param formats: names of the formats that are registered.
    """
    names = ", ".join(sources)
    try:
        catalog, bound = open_catalog(sources, root=root)
    except CatalogError as error:
        words = f"{_several(error.problems, 'mistake')} in {names}"
        return Check("catalogue", words, tuple(map(Finding.of, error.problems))), None
    problems = [problem for event in catalog.events.values() for problem in _formats(catalog, event, formats)]
    findings = [Finding.of(problem) for problem in dict.fromkeys(problems)]
    findings += [
        Finding(
            Level.WARNING,
            'has no owner, so no subscription gets its events. Set "owner".',
            *catalog.where(channel.path),
            channel.path,
        )
        for channel in catalog.channels.values()
        if channel.owner is None
        and channel.sole_owner is None
        and channel.model is not None
        and channel.events
    ]
    findings += [
        Finding(Level.WARNING, str(doubt), *catalog.where(each.channel.path), each.channel.path)
        for each in bound.values()
        for doubt in each.doubts
    ]
    findings += _samples(catalog, bound)
    words = f"{_several(catalog.events, 'event')} in {_several(catalog.channels, 'channel')}, from {names}"
    return Check("catalogue", words, tuple(findings)), None if problems else (catalog, bound)


def _samples(catalog: Catalog, bound: t.Mapping[str, BoundChannel]) -> t.Iterator[Finding]:
    """Tell of samples that are no example of what is sent: test requests send them, and customers build on them."""
    for event in catalog.events.values():
        schema = data_schema(bound[event.channel], event)
        if event.sample is None or not schema:
            continue
        path = f"{event.path}.sample"
        is_open = schema.get("additionalProperties", False)
        unknown = [] if is_open else sorted(event.sample.keys() - schema["properties"].keys())
        said = mismatch(schema, json.loads(payload.encode(event.sample)), "it")
        if unknown:
            said = f"it has {', '.join(unknown)}"
        if said:
            text = f"{said}, which data never contains. Correct or remove it: an example is then made from the schema."
            yield Finding(Level.WARNING, text, *catalog.where(path), path)


def _several(things: t.Sized, noun: str) -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"


def _formats(catalog: Catalog, event: EventType, known: t.Collection[str]) -> t.Iterator[Problem]:
    for name in event.formats:
        if name in known:
            continue
        key = "format" if name == event.format else "formats"
        places = (f"{event.path}.{key}", f"channels.{event.channel}.{key}", f"defaults.{key}")
        path = next((place for place in places if place in catalog.positions), event.path)
        otherwise = f"Register it with @webhooks.payload_format({name!r}) before init_app."
        remedy = did_you_mean(name, known, otherwise)
        yield Problem(*catalog.where(path), path, f'no format "{name}" is registered.', remedy)


# ---- the lock file ---------------------------------------------------------------------------------------


def lock_path(sources: t.Sequence[str], root: Path) -> Path:
    """Return where the lock file is: next to the first catalogue that is a file, `webhooks.lock.json` for
    `webhooks.yaml`; else in the app's own folder."""
    files = (root / source for source in sources)
    first = next((path for path in files if path.is_file()), root / "webhooks.yaml")
    return first.with_name(f"{first.stem}.lock.json")


def check_lock(opened: Opened, path: Path, *, update: bool) -> Check:
    """Compare a catalogue with its lock file.

    :param update: write the lock anew; changes are reported as notes instead of errors.
    """
    catalog, bound = opened
    new = build_lock(catalog, *describe(bound))
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
        changes = compare(old if isinstance(old, dict) else {}, new)
    except FileNotFoundError:
        return _without(path, new, update)
    except (OSError, ValueError, ConfigurationError) as error:
        if update:
            return _without(path, new, update)
        text = f"{path} cannot be read: {error} Write it again with --update."
        return Check("lock", "unreadable", (Finding(Level.ERROR, text),))
    findings = tuple(
        Finding(Level.ERROR if change.breaking and not update else Level.NOTE, str(change))
        for change in changes
    )
    if update and changes:
        _write(path, new)
        return Check("lock", f"{path.name} rewritten", findings)
    return Check("lock", _summary(path, findings), findings)


def _summary(path: Path, findings: t.Sequence[Finding]) -> str:
    breaking = sum(finding.level is Level.ERROR for finding in findings)
    if breaking:
        return f"{breaking} breaking since {path.name} was written; --update accepts them"
    if findings:
        return f"{len(findings)} new since {path.name} was written; --update writes them down"
    return f"as {path.name} says"


def _without(path: Path, lock: t.Mapping[str, t.Any], update: bool) -> Check:
    if update:
        _write(path, lock)
        return Check("lock", f"{path.name} written: commit it next to the catalogue")
    text = f"There is no {path}. Write it with --update and commit it, so that breaking changes are found."
    return Check("lock", "none yet", (Finding(Level.WARNING, text),))


def _write(path: Path, lock: t.Mapping[str, t.Any]) -> None:
    path.write_text(json.dumps(lock, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


# ---- URLs ------------------------------------------------------------------------------------------------


def check_urls(opened: Opened, place: str | None) -> Check | None:
    """Report schemas that build URLs although no base URL is configured; None if no schema builds any.

    :param place: the URL of the app's root.
    """
    _catalog, bound = opened
    found = sorted({name for each in bound.values() for name in _makes_urls(each)})
    if not found:
        return None
    names = ", ".join(found)
    if place is not None:
        return Check("urls", f"of {place}, by {names}")
    text = (
        f"{names} build URLs, but the URL of this app is not configured: absolute URLs fail the event, and outside a "
        "request all URLs are absolute. Set WEBHOOKS_BASE_URL or SERVER_NAME."
    )
    return Check("urls", "without a base URL", (Finding(Level.WARNING, text),))


def _makes_urls(bound: BoundChannel) -> t.Iterator[str]:
    for schema in {id(each): each for each in bound.schemas.values()}.values():
        for name, field in schema.dump_fields.items():
            kinds = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(field).__mro__}
            is_link = bool(kinds & {("flask_marshmallow", "URLFor"), ("flask_marshmallow", "Hyperlinks")})
            if is_link or "url_for" in (names_read(schema, field) or ()):
                yield f"{type(schema).__name__}.{name}"
    if bound.plain is not None and "url_for" in bound.plain.code:
        yield f"{bound.plain.mapper.class_.__name__}.{bound.plain.method}()"
