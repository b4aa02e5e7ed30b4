"""The fields of a subscription that a caller gives, and the checks of fields that depend on nothing else.

The API makes a `SubscriptionInput` from a body, the console from a form, the command line from options, `manager` from
arguments. Checks against other fields, the catalogue or the settings are in `validation`.
"""

from __future__ import annotations

import dataclasses
import math
import typing as t
from collections.abc import Mapping, Sequence

from .. import retry
from ..errors import ErrorText
from ..visible import is_storable
from .validation_errors import ValidationErrors

__all__ = ["PLAIN", "UNSET", "SubscriptionInput", "Unset"]

LONGEST_DESCRIPTION = 1024
SLOWEST, FASTEST = 0.001, 1000.0
"""Requests a second that a rate limit may have: a slower one is like switching off, a faster one limits nothing."""


class Unset:
    """The type of `UNSET`, the value of a field that was not given; None is a value with a meaning."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET = Unset()


@dataclasses.dataclass(frozen=True, kw_only=True, repr=False)
class SubscriptionInput:
    """The fields of a new subscription, or those that a change sets.

    It has no `repr`, because it may hold credentials. The values are not checked yet, so they may have any type.
    """

    url: str | Unset = UNSET
    events: Sequence[t.Any] | Unset = UNSET
    """Patterns, or ``{"event": pattern, "includes": [names]}``; with `channels` all that it listens to."""
    channels: Sequence[str] | Unset = UNSET
    """Names of channels; each stands for all events of the channel."""
    environment: str | Unset | None = UNSET
    """None: the app's own. It cannot be changed."""
    description: str | Unset = UNSET
    active: bool | Unset = UNSET
    format: str | Unset | None = UNSET
    """The envelope; None: the one that the catalogue sets for each event."""
    headers: Mapping[str, str | None] | Unset | None = UNSET
    """Merged by name when changed: None removes one, None for all of them clears (RFC 7396)."""
    retry: t.Any = UNSET
    """`standard`, `none`, or seconds before each further attempt; None: the event's or the app's."""
    rate_limit: float | Unset | None = UNSET
    """Requests a second; None: no limit."""
    metadata: Mapping[str, t.Any] | Unset | None = UNSET
    """The customer's own notes, merged as `headers` are."""
    signature: str | Unset = UNSET
    """The scheme that secrets are made for."""
    secret: str | Unset | None = UNSET
    """The customer's own secret, only for a new subscription; None: we generate one."""
    held: str | Unset | None = UNSET
    """With `active`, to switch on: `send` or `discard` the deliveries that were held meanwhile."""

    @classmethod
    def of(cls, values: Mapping[str, t.Any]) -> SubscriptionInput:
        """Pick the fields of a subscription out of other values."""
        return cls(**{name: value for name, value in values.items() if name in NAMES})

    def given(self) -> dict[str, t.Any]:
        """Return the fields that are given."""
        every = {name: getattr(self, name) for name in NAMES}
        return {name: value for name, value in every.items() if not isinstance(value, Unset)}

    def completed(self) -> SubscriptionInput:
        """Return the input of a new subscription, with defaults for fields that were not given."""
        return dataclasses.replace(NEW, **self.given())

    @property
    def names_events(self) -> bool:
        """Whether `events` or `channels` was given."""
        return not (isinstance(self.events, Unset) and isinstance(self.channels, Unset))


NAMES = frozenset(field.name for field in dataclasses.fields(SubscriptionInput))
NEW = SubscriptionInput(
    events=(),
    channels=(),
    environment=None,
    description="",
    active=True,
    format=None,
    headers=None,
    retry=None,
    rate_limit=None,
    metadata=None,
    signature="v1",
    secret=None,
)


def _retry(value: object, faults: ValidationErrors) -> t.Any:
    """Return the schedule as it is stored: None, a name, or seconds."""
    try:
        retry.customers_schedule(t.cast("t.Any", value))
    except ValueError as error:
        faults.add("retry", error.args[0])
    return value


def _number(name: str, least: float, most: float) -> t.Callable[[object, ValidationErrors], float | None]:
    """Return the check of a field that is a number in a range, or None."""

    def check(value: object, faults: ValidationErrors) -> float | None:
        if value is None:
            return None
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        if not is_number or not least <= t.cast("float", value) <= most:
            faults.add(name, ErrorText("number_range", least=f"{least:g}", most=f"{most:g}"))
            return None
        return float(t.cast("float", value))

    return check


def _description(value: object, faults: ValidationErrors) -> str:
    if not isinstance(value, str) or len(value) > LONGEST_DESCRIPTION or not is_storable(value):
        faults.add("description", ErrorText("description_text", most=LONGEST_DESCRIPTION))
        return ""
    return value


def _active(value: object, faults: ValidationErrors) -> bool:
    if not isinstance(value, bool):
        faults.add("active", ErrorText("not_a_flag"))
        return False
    return value


def signature(value: object, faults: ValidationErrors) -> t.Literal["v1", "v1a"]:
    """Return the scheme that secrets are made for."""
    if value not in ("v1", "v1a"):
        faults.add("signature", ErrorText("unknown_signature"))
        return "v1"
    return value


PLAIN: Mapping[str, t.Callable[[object, ValidationErrors], object]] = {
    "description": _description,
    "active": _active,
    "retry": _retry,
    "rate_limit": _number("rate_limit", SLOWEST, FASTEST),
    "signature": signature,
}
"""Fields that are checked by themselves and kept in the column of their name. A new one of that kind is added here and
to `SubscriptionInput`."""
