"""Decides the next step after an attempt: delivered, try again after so many seconds, or failed.

The law of this room: pure functions. Time is the parameter `now`, randomness the parameter `draw`.

The order of calls: `Failure.of_status` (or the transport) classifies the answer, `retry_after` reads the receiver's
header, and `decide` makes a `Verdict` from both and from the subscription's `schedule`.
"""

from __future__ import annotations

import enum
import re
import typing as t
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from .errors import ErrorText

__all__ = [
    "STANDARD",
    "Failure",
    "Verdict",
    "bounded",
    "customers_schedule",
    "decide",
    "is_pace",
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

_HINTS: dict[str, str] = {
    "dns": "The host name did not resolve: check its spelling and that its DNS records are public.",
    "blocked_address": "The host name resolves to an address that we never connect to: use a publicly reachable one.",
    "connect": "No connection: check that the server is up and that its firewall lets us in on this port.",
    "tls": "TLS failed: check that the certificate is valid, complete and made for this host name.",
    "timeout": "No complete response in time: answer 2xx first and process the event afterwards.",
    "protocol": "The answer was not valid HTTP: check that the port speaks HTTP or HTTPS, as the URL says.",
    "too_large": "The response was too large: answer 2xx with a short or an empty body.",
    "redirect": "Redirects are never followed: subscribe with the final URL.",
    "http_4xx": "The receiver refused the request: check its path, authentication and signature check.",
    "http_5xx": "The receiver failed while handling the request: look in its log for this webhook-id.",
    "poison": "The sender could not build the request, nothing is wrong with the receiver: ask the operator.",
}


class Failure(enum.StrEnum):
    """Why an attempt failed. Every class is retried by the schedule.

    That includes `BLOCKED_ADDRESS` and `POISON`, which other systems drop at once: a DNS zone that points to 0.0.0.0
    for an hour, or a worker deployed without its encryption key, must not lose deliveries. Such a retry opens no
    connection, and a subscription that only fails is disabled in the end.
    """

    DNS = "dns"
    """The name did not resolve, or resolving it took too long."""
    BLOCKED_ADDRESS = "blocked_address"
    """The name resolved to an address that the guard refuses."""
    CONNECT = "connect"
    """No connection: refused, unreachable, or reset before an answer."""
    TLS = "tls"
    """The handshake failed or the certificate did not verify."""
    TIMEOUT = "timeout"
    """The time to connect, or for the whole attempt on the wall clock, ran out."""
    PROTOCOL = "protocol"
    """The receiver's bytes are no final HTTP response."""
    TOO_LARGE = "too_large"
    """The status line and headers exceed our limits."""
    REDIRECT = "redirect"
    """A 3xx status, never followed."""
    HTTP_4XX = "http_4xx"
    """A 4xx status; 410 also disables the subscription."""
    HTTP_5XX = "http_5xx"
    """A 5xx status, or one beyond 599."""
    POISON = "poison"
    """Our own side could not build the request: a secret that does not decrypt, a format that raises."""

    @property
    def hint(self) -> str:
        """One line that tells the receiver's developer how to fix it."""
        return _HINTS[self.value]

    @property
    def is_ours(self) -> bool:
        """Whether it is a fault of ours, which must not count against the subscription."""
        return self is Failure.POISON

    @classmethod
    def of_status(cls, status: int) -> Failure | None:
        """Return the class of a status; `None` for 2xx.

        A status above 599 counts as 5xx (RFC 9110, section 15); one below 200 is not final, so it is `PROTOCOL`.
        """
        if 200 <= status < 300:
            return None
        if status < 200:
            return cls.PROTOCOL
        if status < 400:
            return cls.REDIRECT
        return cls.HTTP_4XX if status < 500 else cls.HTTP_5XX


@dataclass(frozen=True, slots=True)
class Verdict:
    """The next state of a delivery after an attempt."""

    state: t.Literal["delivered", "pending", "failed", "cancelled"]
    """The delivery's next state."""
    retry_in: float | None = None
    """Seconds from the end of the attempt to the next one; `None` unless `pending`."""
    gone: bool = False
    """The receiver answered 410: disable the subscription (`gone`)."""


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


def decide(
    *,
    status: int | None,
    failure: Failure | None,
    attempts: int,
    schedule: Sequence[float],
    retry_after: float | None = None,
    draw: float,
) -> Verdict:
    """Return the next state of a delivery whose attempt number `attempts` has just ended.

    `failure` has precedence over the status: a response cut off by the deadline can have the status 200.

    :param status: of the response; `None` if there was none.
    :param failure: the class that the transport found; `None` to classify by the status.
    :param attempts: made so far, this one included, since the delivery was created or last retried by hand.
    :param schedule: as `schedule` returns it.
    :param retry_after: seconds that the receiver asked for; obeyed for 429 and 503 only (RFC 6585, section 4;
        RFC 9110, section 15.6.4), and only if longer than the schedule's wait.
    :param draw: uniform in [0, 1): the share of the jitter to add.
    """
    if failure is None:
        failure = Failure.PROTOCOL if status is None else Failure.of_status(status)
    if failure is None:
        return Verdict("delivered")
    if status == 410 and failure is Failure.HTTP_4XX:
        return Verdict("failed", gone=True)
    if attempts > len(schedule):
        return Verdict("failed")
    wait = schedule[max(attempts, 1) - 1] * (1 + JITTER * draw)
    if retry_after is not None and status in (429, 503):
        wait = max(wait, min(retry_after, LONGEST_HINT))
    return Verdict("pending", retry_in=wait)


def is_pace(status: int | None, hint: float | None) -> bool:
    """Whether an answer only asks to slow down, and is no failure of the receiver: 429, and 503 with `Retry-After`.

    :param hint: as `retry_after` returns it.
    """
    return status == 429 or (status == 503 and hint is not None)


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
