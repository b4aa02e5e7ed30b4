"""What an answer means: success, or a class of failure, and from it the next state of the delivery.

The law of this room: pure functions; randomness is the parameter `draw`.

The order of calls: `Failure.of_status` (or the transport) classifies the answer, `retry.retry_after` reads the
receiver's header, and `decide` makes a `Verdict` from both and from the subscription's schedule.
"""

from __future__ import annotations

import enum
import typing as t
from collections.abc import Sequence
from dataclasses import dataclass

from .errors import N_
from .retry import JITTER, LONGEST_HINT

__all__ = ["Failure", "Verdict", "decide", "is_pace"]

_HINTS: dict[str, str] = {
    "dns": N_("The host name did not resolve: check its spelling and that its DNS records are public."),
    "blocked_address": N_(
        "The host name resolves to an address that we never connect to: use a publicly reachable one."
    ),
    "connect": N_("Check that the server is up and that its firewall lets us in on this port."),
    "tls": N_("Check that the certificate is valid, complete and made for this host name."),
    "timeout": N_("No complete response in time: answer 2xx first and process the event afterwards."),
    "protocol": N_("Check that the port speaks HTTP or HTTPS, as the URL says."),
    "too_large": N_("Answer 2xx with a short or an empty body."),
    "redirect": N_("Redirects are never followed: set the final URL."),
    "http_4xx": N_("Check the path, the authentication and the signature check of your receiver."),
    "http_5xx": N_("Your receiver failed while handling it: look in its log for this webhook-id."),
    "poison": N_("Your receiver is not at fault: ask the operator."),
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
        """One line for the receiver's developer: how to fix it."""
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
