"""When a delivery is tried again: schedules of waits, and what a receiver's `Retry-After` asks for.

The law of this room: pure functions; time is the parameter `now`. `outcome` decides whether there is another attempt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from .errors import ErrorText

__all__ = [
    "JITTER",
    "LONGEST_HINT",
    "STANDARD",
    "bounded",
    "customers_schedule",
    "retry_after",
    "schedule",
]

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0

STANDARD: tuple[float, ...] = (
    #             seconds before attempt   hours since the first attempt, without the added share
    5.0,  #                            2   0.001
    5 * MINUTE,  #                     3   0.1
    30 * MINUTE,  #                    4   0.6
    2 * HOUR,  #                       5   2.6
    5 * HOUR,  #                       6   7.6
    10 * HOUR,  #                      7   17.6
    14 * HOUR,  #                      8   31.6
    20 * HOUR,  #                      9   51.6
    24
    * HOUR,  #                     10   75.6: a receiver that breaks on Friday evening can be fixed on Monday
)
"""Seconds to wait before attempts 2 to 10; the first is made at once. Standard Webhooks, "Deliverability"."""

JITTER = 0.2
"""Largest share added to a wait, so that deliveries which failed together are not retried together."""

LONGEST_HINT = DAY
"""Seconds; a longer `Retry-After` counts as this, so that a mistake in it cannot stop a delivery for years."""

LONGEST_WAIT, MOST_WAITS = 7 * DAY, 50
"""Bounds of a custom schedule: seconds per wait, and number of waits."""

LONGEST_SHOWN = 160
"""Characters of a malformed schedule that the error repeats, so that a large request gets no large answer."""

LEAST_WAIT, MANY, LEAST_OF_MANY = 1.0, 10, 60.0
"""Shortest waits, in seconds, of a schedule that a customer gives: of the first `MANY`, and of those after them.
Without them a customer could make us send fifty requests at once to any server. Schedules of the operator have no such
bound."""


def schedule(
    spec: str | Sequence[float] | None, default: str | Sequence[float] = "standard"
) -> tuple[float, ...]:
    """Return the seconds to wait before attempts 2, 3, …; there is one attempt more than waits.

    :param spec: ``"standard"``, ``"none"`` (one attempt only), or a list: ``[10, 60]`` makes three attempts,
        the second 10 to 12 seconds after the first. `None` takes the default.
    :raises ValueError: an `ErrorText` that says what is accepted.
    """
    chosen = default if spec is None else spec
    if chosen == "standard":
        return STANDARD
    if chosen == "none":
        return ()
    if isinstance(chosen, str | bytes) or not isinstance(chosen, Sequence) or not _are_waits(chosen):
        given = repr(chosen)[:LONGEST_SHOWN]
        raise ValueError(
            ErrorText("unknown_schedule", given=given, count=MOST_WAITS, most=round(LONGEST_WAIT))
        )
    return tuple(float(wait) for wait in chosen)


def least_wait(index: int) -> float:
    """Return the shortest wait, in seconds, that a customer may set; the first wait has the index 0."""
    return LEAST_WAIT if index < MANY else LEAST_OF_MANY


def customers_schedule(spec: str | Sequence[float] | None) -> tuple[float, ...] | None:
    """Return the schedule that a customer gives; None for the default one.

    :raises ValueError: it is malformed, or its waits are too short.
    """
    if spec is None:
        return None
    waits = schedule(spec)
    if any(wait < least_wait(index) for index, wait in enumerate(waits)):
        raise ValueError(
            ErrorText("schedule_too_fast", least=round(LEAST_WAIT), many=MANY + 1, more=round(LEAST_OF_MANY))
        )
    return waits


def bounded(waits: Sequence[float]) -> tuple[float, ...]:
    """Return a customer's schedule with waits raised to the least ones: old rows may have been saved without them."""
    return tuple(max(wait, least_wait(index)) for index, wait in enumerate(waits))


def _are_waits(waits: Sequence[object]) -> bool:
    return len(waits) <= MOST_WAITS and all(
        # YAML's `yes` is a bool, and a bool is an int; NaN fails both comparisons.
        isinstance(wait, int | float) and not isinstance(wait, bool) and 0 <= wait <= LONGEST_WAIT
        for wait in waits
    )


_SECONDS = re.compile(r"[0-9]+(\.[0-9]*)?(\s*,\s*[0-9]+(\.[0-9]*)?)*")


def retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds that a `Retry-After` header asks to wait, from 0 to 24 hours.

    Accepts seconds or an HTTP-date (RFC 9110, section 10.2.3), of several numbers the largest, and decimals, which the
    RFC does not allow but some receivers send. A date in the past is 0. Returns `None` for a missing or malformed
    header, which leaves the schedule unchanged.

    :param now: aware; the wait until an HTTP-date is counted from it.
    """
    text = value.strip() if value is not None else ""
    if not text:
        return None
    if _SECONDS.fullmatch(text):
        # float(), because int() raises for texts of more than 4,300 digits.
        return min(max(float(each) for each in text.split(",")), LONGEST_HINT)
    try:
        date = parsedate_to_datetime(text)
        # HTTP-dates are in GMT even where the obsolete asctime form does not say so (section 5.6.7).
        seconds = ((date if date.tzinfo else date.replace(tzinfo=UTC)) - now).total_seconds()
    except (ValueError, IndexError, OverflowError):  # IndexError: email's parser has raised it for odd input
        return None
    return min(max(seconds, 0.0), LONGEST_HINT)
