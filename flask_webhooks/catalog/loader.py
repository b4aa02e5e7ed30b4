"""From sources to one catalogue: read, check against the format, build, merge.

Everything that only Python objects can answer (does the model have that column?) waits for `bindings`, which
adds its problems to those found here.
"""

from __future__ import annotations

import typing as t
from pathlib import Path
from types import MappingProxyType

from ..errors import CatalogError, Problem
from .builder import build_channels
from .format import DOCUMENT
from .model import Catalog, Channel, EventType
from .names import did_you_mean
from .sources import SourceText, read_source
from .validators import INVALID, read
from .yaml_reader import Report, compose

DEFAULT_TITLE = "Webhooks"
LONGEST_MESSAGE = 1_000
"""Characters of a message with all its words: it is kept with each event, in a column of 65,535 bytes."""


def load(sources: t.Sequence[str | Path] | str | Path, *, root: Path) -> Catalog:
    """Return the catalogue that all sources make together.

    :param sources: paths relative to `root` or absolute, `package:resource`, or names of entry points in the
        group `flask_webhooks.catalogs`. A single one need not be in a list.
    :param root: the folder that relative paths start from: `app.root_path`.
    :raises CatalogError: with every mistake that the text alone shows, sorted by file and line. Models,
        columns and schemas are looked at by `bindings`.
    """
    catalog, problems = examine(sources, root=root)
    if problems:
        raise CatalogError(problems)
    return catalog


def examine(sources: t.Sequence[str | Path] | str | Path, *, root: Path) -> tuple[Catalog, list[Problem]]:
    """Return what can be understood of the sources, and every mistake in them.

    For callers that want to look further than the first kind of mistake; everyone else uses `load`.
    """
    merged = _Merged()
    for source in [sources] if isinstance(sources, str | Path) else sources:
        found = read_source(source, Path(root))
        if isinstance(found, Problem):
            merged.problems.append(found)
        else:
            merged.add(found)
    return merged.catalog(), merged.problems


class _Merged:
    """The catalogue as it grows, source by source."""

    def __init__(self) -> None:
        self.title = ""
        self.channels: dict[str, Channel] = {}
        self.positions: dict[str, tuple[str, int]] = {}
        self.problems: list[Problem] = []

    def add(self, source: SourceText) -> None:
        report = Report(source.file)
        root = compose(source.text, report)
        document = read(DOCUMENT, root, "", report) if root is not None else INVALID
        if isinstance(document, dict):
            title = document.get("title")
            self.title = self.title or (title if isinstance(title, str) else "")
            for name, channel in build_channels(document).items():
                self._add_channel(name, channel, report)
        self.positions = report.positions | self.positions
        self.problems += sorted(report.problems, key=lambda problem: problem.line)

    def _add_channel(self, name: str, channel: Channel, report: Report) -> None:
        # MariaDB compares text without case: names that differ only in that would be one there.
        same = next((other for other in self.channels if other.casefold() == name.casefold()), None)
        if same is not None:
            file, line = self.positions.get(f"channels.{same}", report.positions[f"channels.{same}"])
            differs = "" if same == name else f' as "{same}"'
            message = f"is declared before{differs}, in {file}:{line}."
            report.refuse_at(channel.path, message, "Rename one of the two, or put their events together.")
            return
        self.channels[name] = channel
        seen: dict[str, str] = {}
        for event in channel.events.values():
            if (other := seen.setdefault(event.event.casefold(), event.event)) != event.event:
                message = f'differs from "{other}" only in upper and lower case.'
                report.refuse_at(event.path, message, "Some databases cannot tell them apart: rename one.")
            if len(event.message) > LONGEST_MESSAGE:
                message = (
                    f"has a message of {len(event.message)} characters, and {LONGEST_MESSAGE} is the most."
                )
                report.refuse_at(event.path, message, "Write less, or shorter titles and labels.")

    def catalog(self) -> Catalog:
        events = {
            event.name: event for channel in self.channels.values() for event in channel.events.values()
        }
        catalog = Catalog(
            self.title or DEFAULT_TITLE,
            MappingProxyType(self.channels),
            MappingProxyType(events),
            MappingProxyType(self.positions),
        )
        self.problems += (problem for event in events.values() for problem in _replacement(event, catalog))
        return catalog


def _replacement(event: EventType, catalog: Catalog) -> t.Iterator[Problem]:
    name = event.deprecated.replacement if event.deprecated is not None else None
    if name is None or (name in catalog.events and name != event.name):
        return
    path = f"{event.path}.deprecated.replacement"
    if name == event.name:
        message, remedy = "is the event itself.", "Name the event to use instead, or leave it out."
    else:
        message = f'no event is called "{name}".'
        others = [other for other in catalog.events if other != event.name]
        remedy = did_you_mean(name, others, "Name an event of this catalogue, or leave it out.")
    yield Problem(*catalog.where(path), path, message, remedy)
