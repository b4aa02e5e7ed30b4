"""Collects what is wrong with a customer's input, by field, so that one answer names all mistakes."""

from __future__ import annotations

from ..catalog import listed
from ..errors import ErrorText, ExclusivityError, SubscriptionError

__all__ = ["ValidationErrors", "short"]

MOST_SUGGESTIONS = 5
"""Misspelt names for which one answer suggests the right one: each search takes milliseconds."""


class ValidationErrors:
    """The mistakes of one input, by field, in the order in which they were found."""

    def __init__(self) -> None:
        self.fields: dict[str, list[str]] = {}
        self._kind: type[SubscriptionError] = SubscriptionError
        self._suggestions = MOST_SUGGESTIONS

    def may_suggest(self) -> bool:
        """Whether to search for a similar name; counts down from `MOST_SUGGESTIONS`."""
        self._suggestions -= 1
        return self._suggestions >= 0

    def add(self, field: str, *messages: str) -> None:
        """Note messages about a field: `ErrorText`, except for texts of the host's own checks."""
        for message in messages:
            known = self.fields.setdefault(field, [])
            if message not in known:
                known.append(message)

    def take(self, error: SubscriptionError) -> None:
        """Add the mistakes of another check. An error about exclusivity alone keeps its type."""
        if isinstance(error, ExclusivityError) and not self.fields:
            self._kind = ExclusivityError
        for field, messages in error.fields.items():
            self.add(field, *messages)

    def raise_if_any(self) -> None:
        """Raise if there is a mistake.

        :raises SubscriptionError: with every mistake in `fields`.
        """
        if not self.fields:
            return
        if self._kind is ExclusivityError and set(self.fields) == {"events"}:
            raise ExclusivityError(self.fields["events"][0], self.fields)
        places = len(self.fields)
        raise SubscriptionError(
            ErrorText("many_mistakes", fields=listed(sorted(self.fields)))
            if places > 1
            else next(iter(self.fields.values()))[0],
            self.fields,
        )


def short(value: object) -> str:
    """Return a value as messages show it: cut, so that an answer is not as large as the request."""
    return repr(value[:80] if isinstance(value, str) else value)[:100]
