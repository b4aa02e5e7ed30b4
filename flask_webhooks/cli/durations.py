"""Time spans as people write them: `90`, `5m`, `1h30m`, `2.5d`."""

from __future__ import annotations

import re
import typing as t
from datetime import timedelta

import click

__all__ = ["Duration", "duration"]

SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_PART = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)([smhdw])")
_NUMBER = re.compile(r"[0-9]{1,12}(?:\.[0-9]{1,9})?")


def duration(text: str, unit: str | None = None) -> timedelta | None:
    """Return the span that a text names, such as `5m` or `1h30m`; None if it names none.

    :param unit: of a number by itself; None: it must have one.
    """
    text = text.strip().lower()
    if unit is not None and _NUMBER.fullmatch(text):
        text += unit
    parts = _PART.findall(text)
    if not parts or "".join(number + each for number, each in parts) != text:
        return None
    try:
        return timedelta(seconds=sum(float(number) * SECONDS[each] for number, each in parts))
    except OverflowError:
        return None


class Duration(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.5, and we let in older ones
    """An option that is a time span.

    :param unit: of a number by itself.
    """

    name = "duration"

    def __init__(self, unit: str = "s") -> None:
        self._unit = unit

    def convert(self, value: t.Any, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return the duration; a text that is not one is a usage error."""
        if isinstance(value, timedelta):
            return value
        found = duration(str(value), self._unit)
        if found is None:
            self.fail(f"{value!r} is not a duration. Use one such as 90s, 5m, 1h30m or 7d.", param, ctx)
        return found
