"""A sentence that knows its code and its parameters.

As with the `ErrorDetail` of Django REST Framework it *is* the English text, so that a traceback, the API, the command
line and a host that catches the error can read it as it is; the console looks its code up and says it in the visitor's
language.
"""

from __future__ import annotations

import typing as t

from .sentences import SENTENCES

__all__ = ["ErrorText", "Value"]

Value: t.TypeAlias = str | float
"""What a parameter may be: plain, so that any door can write it."""


class ErrorText(str):
    """English text, with the code and the parameters that it was made of."""

    code: str
    """One of `SENTENCES`."""
    params: t.Mapping[str, Value]
    """By the names that the sentence has."""

    def __new__(cls, code: str, /, **params: Value) -> ErrorText:
        """Make the sentence.

        :raises KeyError: there is no such code, or one of its parameters is missing.
        """
        made = super().__new__(cls, SENTENCES[code].english % params)
        made.code, made.params = code, params
        return made

    def __reduce__(self) -> tuple[t.Any, ...]:
        """Pickle and copy it by its code: the text alone would be taken for one."""
        return _made, (self.code, dict(self.params))


def _made(code: str, params: dict[str, Value]) -> ErrorText:
    return ErrorText(code, **params)
