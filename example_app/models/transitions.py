"""Statuses that may only change along a drawn path."""

from __future__ import annotations

import enum
import typing as t
from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy import orm


class TransitionRefused(Exception):
    """A record may not go from its status to the one asked for."""

    def __init__(self, old: str, new: str, allowed: frozenset[str]) -> None:
        self.old, self.new, self.allowed = old, new, allowed
        ways = ", ".join(sorted(allowed)) or "nothing: this is final"
        super().__init__(f"A status of {old!r} cannot become {new!r}. From here it can become {ways}.")


class HasTransitions:
    """Checks every assignment to ``status``, whoever makes it: the API, a script, a test.

    A new record may begin anywhere, so that history can be imported.
    """

    __transitions__: t.ClassVar[Mapping[str, frozenset[str]]]

    @orm.validates("status")
    def _check_transition(self, key: str, value: str) -> enum.StrEnum:
        choices = t.cast("sa.Enum", sa.inspect(type(self)).columns[key].type).enum_class
        new = t.cast("type[enum.StrEnum]", choices)(value)
        old = t.cast("enum.StrEnum | None", getattr(self, key))
        if old is not None and new != old and new not in self.__transitions__[old]:
            raise TransitionRefused(str(old), str(new), self.__transitions__[old])
        return new
