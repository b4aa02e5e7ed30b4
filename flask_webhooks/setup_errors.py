"""Errors at start-up, collected for the commands that have to run nevertheless.

`flask webhooks init` writes the missing catalogue, and `flask webhooks check` lists all mistakes of an existing one.
Both need the app, whose factory would fail at the first mistake. Inside `forgiving()` the extension records the error
instead of raising it, and the factory continues.
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
    """Names of the payload formats that were registered before the error."""


_setbacks: ContextVar[list[Setback] | None] = ContextVar("webhooks_setbacks", default=None)


@contextlib.contextmanager
def forgiving() -> t.Iterator[list[Setback]]:
    """Let the factory create an app although its webhooks cannot be initialised; yield the list of such apps."""
    found: list[Setback] = []
    token = _setbacks.set(found)
    try:
        yield found
    finally:
        _setbacks.reset(token)


def forgive(app: Flask, error: Exception, formats: t.Iterable[str]) -> bool:
    """Record an error at start-up and return True; outside of `forgiving()` return False, and the caller raises it."""
    found = _setbacks.get()
    if found is None:
        return False
    found.append(Setback(app, error, frozenset(formats)))
    return True
