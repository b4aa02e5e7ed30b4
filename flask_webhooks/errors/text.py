"""`ErrorText`: a sentence that carries its code and its parameters.

Like the `ErrorDetail` of Django REST Framework it *is* the English text, so a traceback, the API, the command line and
a host that catches the error can use it directly. The console finds the translation by its code.
"""

from __future__ import annotations

import typing as t

from .sentences import SENTENCES

__all__ = ["ErrorText", "Value"]

Value: t.TypeAlias = str | float
"""Types of a parameter: plain values, which every door can format."""


class ErrorText(str):
    """English text, with its code and parameters as attributes."""

    code: str
    """A key of `SENTENCES`."""
    params: t.Mapping[str, Value]
    """Values by the names in the sentence."""

    def __new__(cls, code: str, /, **params: Value) -> ErrorText:
        """Format the sentence of a code.

        :raises KeyError: the code does not exist, or one of its parameters is missing.
        """
        made = super().__new__(cls, SENTENCES[code].english % params)
        made.code, made.params = code, params
        return made

    def __reduce__(self) -> tuple[t.Any, ...]:
        """Pickle and copy by the code: by default the text would be passed to `__new__` as a code."""
        return _made, (self.code, dict(self.params))


def _made(code: str, params: dict[str, Value]) -> ErrorText:
    return ErrorText(code, **params)
