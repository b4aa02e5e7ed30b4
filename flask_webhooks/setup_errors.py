"""What stopped the extension from starting, for the commands that have to run nevertheless.

`flask webhooks init` writes the catalogue that is missing, and `flask webhooks check` tells everything that is wrong
with the one that is there. Both need the app, and its factory would stop at the first mistake. Inside `forgiving()`
the extension notes what it would have raised, and lets the factory go on.
"""

from __future__ import annotations

import contextlib
import typing as t
from contextvars import ContextVar
from dataclasses import dataclass

if t.TYPE_CHECKING:
    from flask import Flask

__all__ = ["Setback", "forgive", "forgiving"]


@dataclass(frozen=True)
class Setback:
    """An app on which the extension could not be initialised."""

    app: Flask
    error: Exception
    formats: frozenset[str]
    """Names of the formats that were registered by then."""


_setbacks: ContextVar[list[Setback] | None] = ContextVar("webhooks_setbacks", default=None)


@contextlib.contextmanager
def forgiving() -> t.Iterator[list[Setback]]:
    """Let apps be made whose webhooks cannot be initialised; the list gets one entry for each."""
    found: list[Setback] = []
    token = _setbacks.set(found)
    try:
        yield found
    finally:
        _setbacks.reset(token)


def forgive(app: Flask, error: Exception, formats: t.Iterable[str]) -> bool:
    """Say whether an error at start-up is to be passed over; it is noted then."""
    found = _setbacks.get()
    if found is None:
        return False
    found.append(Setback(app, error, frozenset(formats)))
    return True
