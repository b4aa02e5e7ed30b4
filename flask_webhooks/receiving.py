"""Verifies deliveries in a Flask app that receives webhooks.

The law of this door: a request that does not verify raises an error which names the part that failed; a returned body
was sent by the holder of the secret within `tolerance`, and is unchanged. It accepts requests of every sender that
follows the Standard Webhooks specification::

    @app.post("/hooks")
    def hooks():
        try:
            received = verify(request, app.config["HOOK_SECRET"])
        except VerificationError:
            abort(401)
        if not seen_before(received.id):
            ...

A delivery can arrive more than once: store each `webhook-id`, and skip the ones that you have seen.
"""

from __future__ import annotations

import base64
import hmac
import json
import time
import typing as t
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from standardwebhooks import Webhook

from .errors import SecretError, VerificationError
from .signing import PublicKey, content, parse

__all__ = ["Received", "verify"]

MOST_SIGNATURES = 100
"""Signatures that are checked: a sender sends one for each valid secret, and each check takes time."""
TOLERANCE = 300
"""Seconds, as in the official libraries: more than clocks drift, less than a replay attack needs."""


class Request(t.Protocol):
    """The part of a request that `verify` uses; the requests of Flask and Werkzeug have it."""

    @property
    def headers(self) -> t.Any:
        """A mapping, or another object with `items()`; names in upper or lower case."""

    def get_data(self) -> bytes:
        """Return the raw body: a body that was parsed and serialised again would no longer verify."""
        ...


class Received(dict[str, t.Any]):
    """The body of a verified request, as a dict, with the values of its headers as attributes.

    Only `id` and the body are signed. The other headers are protected by TLS alone: use them to order events and to
    count attempts, never to decide about permissions. A header that is malformed or missing is None; other senders of
    Standard Webhooks omit most of them.
    """

    id: str
    """The idempotency key: the same on every retry."""
    event: str | None
    """The event type: `invoices.paid`."""
    occurred_at: datetime | None
    """When it happened: aware, with microseconds."""
    sequence: int | None
    """Grows with each event about one object: the event with the larger number is newer."""
    attempt: int | None
    """The number of this attempt of the delivery, from 1."""
    delivery: str | None
    """The id of the delivery in the sender's log."""
    trigger: str | None
    """Why it was sent: `live`, `replay`, `backfill` or `test`."""

    def __init__(self, body: Mapping[str, t.Any], message_id: str, headers: Mapping[str, str]) -> None:
        super().__init__(body)
        self.id = message_id
        self.event = headers.get("webhook-event") or None
        self.occurred_at = _instant(headers.get("webhook-occurred-at", ""))
        self.sequence = _number(headers.get("webhook-sequence", ""))
        self.attempt = _number(headers.get("webhook-attempt", ""))
        self.delivery = headers.get("webhook-delivery") or None
        self.trigger = headers.get("webhook-trigger") or None


def _instant(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if found.tzinfo is None else found


def _number(text: str) -> int | None:
    # A BIGINT has at most 19 digits.
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 19 else None


class _Delivery(t.NamedTuple):
    message_id: str
    timestamp: int
    signatures: Sequence[tuple[str, bytes]]
    body: bytes
    headers: Mapping[str, str]
    """By lower-case name."""


def verify(
    request: Request,
    secret: str | Sequence[str],
    *,
    tolerance: float = TOLERANCE,
    now: datetime | None = None,
) -> Received:
    """Verify a request and return its body (Standard Webhooks, "Verifying signatures").

    The body is a dict whose attributes are the values of the headers: see `Received`.

    :param secret: ``whsec_…``, or ``whpk_…`` for ed25519 signatures; several while a secret is rotated. One
        signature that matches one secret is enough.
    :param tolerance: seconds that `webhook-timestamp` may lie in the past or the future.
    :param now: an aware time; by default the current one.
    :raises VerificationError: the message begins with the name of the header that failed, or with "body".
    :raises SecretError: a given secret is malformed: a mistake in the receiving app, not in the request.
    """
    secrets = [secret] if isinstance(secret, str) else list(secret)
    if not secrets:
        raise SecretError("There is no secret to verify with. Pass the whsec_ or whpk_ of the subscription.")
    checks = [_Check(text) for text in secrets]
    delivery = _read(request)
    _check_age(delivery.timestamp, tolerance, now.timestamp() if now else time.time())
    if not any(check.fits(delivery) for check in checks):
        raise VerificationError(
            "webhook-signature: none of the signatures fits. Check that the secret is this subscription's, and"
            " that the body is verified as it arrived, before anything parses it."
        )
    return Received(_parse(delivery.body), delivery.message_id, delivery.headers)


def _read(request: Request) -> _Delivery:
    given: Mapping[str, str] = {name.lower(): value for name, value in request.headers.items()}
    missing = [
        name for name in ("webhook-id", "webhook-timestamp", "webhook-signature") if not given.get(name)
    ]
    if missing:
        raise VerificationError(
            f"{missing[0]}: the header is missing. Is the sender one of Standard Webhooks?"
        )
    digits = given["webhook-timestamp"]
    # 11 digits last until the year 5138 and fit into a datetime.
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 11):
        raise VerificationError("webhook-timestamp: not a whole number of seconds since 1970.")
    if "." in given["webhook-id"]:
        raise VerificationError("webhook-id: has a full stop, which could hide where the timestamp begins.")
    if not given["webhook-id"].isascii():
        raise VerificationError("webhook-id: not ASCII, which no header of a sender should be.")
    signatures = list(_signatures(given["webhook-signature"]))
    return _Delivery(given["webhook-id"], int(digits), signatures, request.get_data(), given)


def _signatures(header: str) -> Iterable[tuple[str, bytes]]:
    """Yield kind and bytes of each signature; skip malformed ones. `_Check` ignores kinds of later versions."""
    for entry in header.split(None, MOST_SIGNATURES)[:MOST_SIGNATURES]:
        kind, _, digits = entry.partition(",")
        try:
            yield kind, base64.b64decode(digits, validate=True)
        except ValueError:
            continue


def _check_age(timestamp: int, tolerance: float, now: float) -> None:
    age = now - timestamp
    if age > tolerance:
        raise VerificationError(
            f"webhook-timestamp: {age:.0f} seconds old; at most {tolerance} are accepted."
        )
    if -age > tolerance:
        raise VerificationError(
            f"webhook-timestamp: {-age:.0f} seconds ahead; at most {tolerance} are accepted."
        )


class _Check:
    """One secret of the receiver, ready to verify deliveries."""

    def __init__(self, text: str) -> None:
        self._public = PublicKey(text) if text.startswith("whpk_") else None
        if self._public is None:
            if parse(text).kind != "v1":
                raise SecretError(
                    "whsk_ is the sender's private key. A receiver verifies with the whpk_ key."
                )
            self._symmetric = Webhook(text)

    def fits(self, delivery: _Delivery) -> bool:
        if self._public is not None:
            signed = content(delivery.message_id, delivery.timestamp, delivery.body)
            return any(
                self._public.fits(given, signed) for kind, given in delivery.signatures if kind == "v1a"
            )
        expected = self._expected(delivery)
        return any(
            hmac.compare_digest(expected, given) for kind, given in delivery.signatures if kind == "v1"
        )

    def _expected(self, delivery: _Delivery) -> bytes:
        # The library's own `verify` has a fixed tolerance, and raises on malformed entries of the header.
        signature = self._symmetric.sign(
            msg_id=delivery.message_id,
            timestamp=datetime.fromtimestamp(delivery.timestamp, UTC),
            data=_text(delivery.body),
        )
        return base64.b64decode(signature.removeprefix("v1,"))


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError as error:
        raise VerificationError("body: not UTF-8, so no JSON of a webhook.") from error


def _parse(body: bytes) -> dict[str, t.Any]:
    try:
        parsed = json.loads(_text(body))
    except (ValueError, RecursionError) as error:
        raise VerificationError("body: signed by the sender, but not JSON.") from error
    if not isinstance(parsed, dict):
        raise VerificationError(f"body: signed by the sender, but a {type(parsed).__name__} and no object.")
    return parsed
