"""`flask webhooks check --rows`: dumps the newest row of each channel and prints a table."""

from __future__ import annotations

import dataclasses
import sys
import typing as t

from .. import checks
from ..checks import RowCheck
from .output import progress, say

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["look_at_rows", "tell_of_rows", "values_of_rows"]

_HEAD = ("channel", "row", "ms", "statements", "bytes")


def look_at_rows(state: AppState, channel: str | None, *, is_hidden: bool) -> list[RowCheck]:
    """Check the newest row of each channel, with a progress bar on a terminal."""
    channels = checks.checked_channels(state, channel)
    is_hidden = is_hidden or not sys.stderr.isatty()
    bar = progress(
        checks.check_rows(state, channels),
        length=len(channels),
        label="Dumping rows",
        hidden=is_hidden,
        err=True,
    )
    with bar as found:
        return list(found)


def values_of_rows(found: t.Sequence[RowCheck]) -> list[dict[str, t.Any]]:
    """Return the results as JSON values."""
    return [{"ok": each.ok, **dataclasses.asdict(each)} for each in found]


def tell_of_rows(found: t.Sequence[RowCheck]) -> None:
    """Print a line for each channel, and below it the errors and warnings."""
    lines = [(each, _cells(each)) for each in found]
    widths = [max(map(len, column)) for column in zip(_HEAD, *(cells for _, cells in lines), strict=True)]
    say("\n      ", _line(_HEAD, widths))
    for each, cells in lines:
        sign = ("ok  ", "green") if each.ok else ("FAIL", "red")
        say("    " if each.row is None and each.ok else sign, "  ", _line(cells, widths))
        for fault in each.faults:
            say(f"      error: {fault}", keep="")
        for warning in each.warnings:
            say(f"      warning: {warning}", keep="")
        for name, count in each.loads.items():
            say(f"      warning: {_lazily(name, count)}", keep="")
    say("", _summary(found))


def _cells(each: RowCheck) -> tuple[str, ...]:
    if each.row is None:
        return (each.channel, "none yet" if each.ok else "-", "-", "-", "-")
    return (each.channel, each.row, f"{each.seconds * 1000:.1f}", str(each.statements), str(each.size or "-"))


def _line(cells: t.Sequence[str], widths: t.Sequence[int]) -> str:
    """Align names to the left, numbers to the right."""
    padded = [
        cell.ljust(width) if at < 2 else cell.rjust(width)
        for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(padded).rstrip()


def _lazily(name: str, count: int) -> str:
    times = "" if count == 1 else f", {count} times for this row"
    return (
        f"{name} is loaded row by row{times}: a statement more for each row of a commit. Let a field of the schema "
        'name it, or set lazy="selectin" on the relationship.'
    )


def _summary(found: t.Sequence[RowCheck]) -> str:
    looked = [each for each in found if each.row is not None]
    failed = sum(not each.ok for each in found)
    words = f"{len(looked)} of {len(found)} channels have a row; {failed} of them would fail."
    return f"{words} Nothing was written."
