"""From the outcome of an attempt to the next step: delivered, try again at some time, or failed.

The law of this room: pure functions. Time arrives as `now`, randomness as `draw`; nothing is read or written.
The rules are section 4.4 of the design; the numbers are in `STANDARD`.
"""

from __future__ import annotations

import enum

__all__ = ["Failure"]

_HINTS: dict[str, str] = {
    "dns": "The host name did not resolve: check its spelling and that its DNS records are public.",
    "blocked_address": "The host name leads to an address we never talk to: use a publicly reachable one.",
    "connect": "No connection: check that the server is up and that its firewall lets us in on this port.",
    "tls": "TLS failed: check that the certificate is valid, unexpired, complete and made for this host name.",
    "timeout": "No complete answer in time: answer 2xx first, do the work afterwards.",
    "protocol": "The answer was not valid HTTP: check that the port speaks HTTP or HTTPS as the URL says.",
    "too_large": "The response was too large: answer 2xx with a short or an empty body.",
    "redirect": "Redirects are never followed: subscribe with the final URL.",
    "http_4xx": "The receiver refused the request: check the path, its authentication and its signature check.",
    "http_5xx": "The receiver failed while handling the request: look in its log for this webhook-id.",
    "poison": "The request could not be built on the sender's side: the operator finds why in the sender's log.",
}


class Failure(enum.StrEnum):
    """Why an attempt failed; every class is retried by the schedule, `POISON` excepted."""

    DNS = "dns"
    """The name did not resolve, or resolving it took too long."""
    BLOCKED_ADDRESS = "blocked_address"
    """The name resolved to an address that the guard refuses."""
    CONNECT = "connect"
    """No connection could be made: refused, unreachable, or reset before the first byte."""
    TLS = "tls"
    """The handshake failed or the certificate did not verify."""
    TIMEOUT = "timeout"
    """The time to connect or the wall clock of the whole attempt ran out."""
    PROTOCOL = "protocol"
    """Something answered, but not in valid HTTP."""
    TOO_LARGE = "too_large"
    """The response was longer than we are ready to read."""
    REDIRECT = "redirect"
    """A 3xx status: never followed."""
    HTTP_4XX = "http_4xx"
    """A 4xx status."""
    HTTP_5XX = "http_5xx"
    """A 5xx status, or one outside 200 to 599."""
    POISON = "poison"
    """Our own side: no request could be built (secret does not decrypt, format raised). Not tried again."""

    @property
    def hint(self) -> str:
        """One line for the receiver's developer: what to do about it."""
        return _HINTS[self.value]


