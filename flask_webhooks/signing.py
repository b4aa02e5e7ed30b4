"""Signatures and secrets, by the Standard Webhooks specification 1.0.0.

The law of this room: a secret appears in no `repr`, in no error and in no exception's context, and nothing is sent
without a signature. Pure functions: time and the source of randomness are parameters; only Fernet reads both itself.

Signatures are made with `hmac` and not with `standardwebhooks`, whose `sign` takes text (our bodies are bytes)
and overwrites the zone of an aware time instead of converting it. The tests verify with that library.
"""

from __future__ import annotations

import base64
import hmac
import itertools
import typing as t
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from secrets import token_bytes

from cryptography.exceptions import InvalidSignature
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from .errors import ErrorText, SecretError

__all__ = [
    "PublicKey",
    "Secret",
    "Vault",
    "content",
    "derive_key",
    "generate",
    "headers",
    "is_guessable",
    "parse",
]

Kind = t.Literal["v1", "v1a"]

SYMMETRIC, PRIVATE, PUBLIC = "whsec_", "whsk_", "whpk_"
"""Prefixes of a secret's text form (Standard Webhooks, "Signature scheme")."""

SHORTEST, LONGEST = 24, 64
"""Bytes of a symmetric secret: 192 to 512 bits."""


@dataclass(frozen=True, slots=True, repr=False)
class Secret:
    """A signing secret; made by `parse` or `generate`. Its `repr` shows only the kind."""

    kind: Kind
    """`v1`: HMAC-SHA256, shared with the receiver. `v1a`: ed25519, the receiver holds only `public`."""
    text: str
    """The whole secret, `whsec_…` or `whsk_…`: stored encrypted, and for `v1` shown to its owner once."""
    public: str | None
    """The key with which a receiver verifies `v1a`, `whpk_…`; `None` for `v1`."""
    _sign: Callable[[bytes], bytes] = field(compare=False)

    def __repr__(self) -> str:
        return f"<Secret {self.kind}>"

    @property
    def shown(self) -> str:
        """The key that a receiver verifies with: the only form that is ever shown, so never a private key."""
        return self.public or self.text

    def sign(self, signed_content: bytes) -> str:
        """Return one signature in the form of the header `webhook-signature`: ``v1,<base64>``."""
        return f"{self.kind},{base64.b64encode(self._sign(signed_content)).decode()}"


def generate(kind: Kind = "v1", *, size: int = 32, random: Callable[[int], bytes] = token_bytes) -> Secret:
    """Return a new secret.

    :param size: bytes of a `v1` secret, 24 to 64; an ed25519 key always has 32.
    :param random: returns so many random bytes; must be a cryptographic source.
    """
    if kind == "v1a":
        return _asymmetric(random(32))
    return parse(SYMMETRIC + base64.b64encode(random(size)).decode())


def parse(text: str) -> Secret:
    """Return the secret of a text such as ``whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw``.

    ``whsk_`` takes a 32-byte seed, or seed and public key together (64 bytes) as some senders write it.

    :raises SecretError: the text is not a known prefix and canonical base64 of the right length. The message never
        holds any part of the secret.
    """
    if text.startswith(SYMMETRIC):
        key = _decode(text, SYMMETRIC)
        if not SHORTEST <= len(key) <= LONGEST:
            raise SecretError(ErrorText("secret_length", size=len(key), least=SHORTEST, most=LONGEST))
        return Secret("v1", text, None, _symmetric(key))
    if text.startswith(PRIVATE):
        key = _decode(text, PRIVATE)
        if len(key) not in (32, 64):
            raise SecretError(ErrorText("private_key_length", size=len(key)))
        secret = _asymmetric(key[:32])
        if len(key) == 64 and key[32:] != _decode(t.cast(str, secret.public), PUBLIC):
            raise SecretError(ErrorText("private_key_halves"))
        return secret
    raise SecretError(ErrorText("secret_prefix"))


FEWEST_BYTES = 8
"""Distinct bytes that a random key has at least: a key of 24 random bytes has fewer than 12 once in 10^13 cases."""


def is_guessable(secret: Secret) -> bool:
    """Whether the secret is not random: it has few distinct bytes, repeats itself, or counts up.

    A key that is text is accepted, because many people use hexadecimal digits as a key.
    """
    key = base64.b64decode(secret.text.partition("_")[2])
    steps = {(after - before) % 256 for before, after in itertools.pairwise(key)}
    threes = {key[at : at + 3] for at in range(len(key) - 2)}
    return min(len(set(key)), len(steps)) < FEWEST_BYTES or len(threes) < 0.7 * len(key)


def _symmetric(key: bytes) -> Callable[[bytes], bytes]:
    """Return the function that signs by HMAC-SHA256. The key schedule is computed once, not for each signature."""
    keyed = hmac.new(key, digestmod="sha256")

    def sign(data: bytes) -> bytes:
        each = keyed.copy()
        each.update(data)
        return each.digest()

    return sign


def _asymmetric(seed: bytes) -> Secret:
    key = Ed25519PrivateKey.from_private_bytes(seed)
    public = PUBLIC + base64.b64encode(key.public_key().public_bytes_raw()).decode()
    return Secret("v1a", PRIVATE + base64.b64encode(seed).decode(), public, key.sign)


def _decode(text: str, prefix: str) -> bytes:
    """Decode base64, but only its canonical form, so that two different texts are two different keys."""
    digits = text.removeprefix(prefix)
    key = b""
    try:
        key = base64.b64decode(digits, validate=True)
    except ValueError:
        pass
    # Raised outside of the `except` block, so that it has no context: a UnicodeEncodeError holds the whole text.
    if not key or base64.b64encode(key).decode() != digits:
        raise SecretError(ErrorText("secret_base64", prefix=prefix))
    return key


class PublicKey:
    """The receiver's half of a `v1a` secret.

    :param text: ``whpk_…``
    :raises SecretError: the text is no ed25519 public key.
    """

    def __init__(self, text: str) -> None:
        raw = _decode(text, PUBLIC) if text.startswith(PUBLIC) else b""
        if len(raw) != 32:
            raise SecretError("A public key begins with whpk_ and has 32 bytes. Take it as it was shown.")
        self._key = Ed25519PublicKey.from_public_bytes(raw)

    def fits(self, signature: bytes, signed_content: bytes) -> bool:
        """Whether the signature was made with the private key, over exactly this content."""
        try:
            self._key.verify(signature, signed_content)
        except InvalidSignature:
            return False
        return True


def content(message_id: str, timestamp: int, body: bytes) -> bytes:
    """Return the content to sign: ``{id}.{timestamp}.{body}``.

    :raises ValueError: the id has a full stop, so the content could be read as that of another id and timestamp.
    """
    if "." in message_id:
        raise ValueError(f"The message id {message_id!r} has a full stop. Use a UUID.")
    return b"%b.%d.%b" % (message_id.encode(), timestamp, body)


def headers(message_id: str, body: bytes, now: datetime, secrets: Sequence[Secret]) -> dict[str, str]:
    """Return the three signature headers of a delivery; new ones for each attempt, over the same bytes.

    :param message_id: the idempotency key, the same on every retry.
    :param now: the time of the attempt, aware in any zone; sent in whole seconds.
    :param secrets: each makes one signature, in this order; several while rotated secrets overlap.
    :raises SecretError: there is no secret; nothing is ever sent unsigned.
    :raises ValueError: the time is naive, and could mean any instant.
    """
    if not secrets:
        raise SecretError("The subscription has no secret to sign with. Rotate its secret.")
    if now.tzinfo is None:
        raise ValueError(f"{now!r} has no zone. Pass an aware time.")
    timestamp = int(now.timestamp())
    signed_content = content(message_id, timestamp, body)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join([secret.sign(signed_content) for secret in secrets]),
    }


def derive_key(secret_key: str | bytes) -> str:
    """Return the Fernet key derived from an app's `SECRET_KEY` by HKDF-SHA256 (RFC 5869).

    The label makes it differ from other keys that the app derives from the same `SECRET_KEY`. HKDF does not stretch: a
    guessable `SECRET_KEY` makes a guessable Fernet key.

    :raises SecretError: the key is empty.
    """
    raw = secret_key.encode() if isinstance(secret_key, str) else secret_key
    if not raw:
        raise SecretError(
            "There is no key to encrypt secrets with. Set SECRET_KEY or WEBHOOKS_ENCRYPTION_KEYS."
        )
    key = HKDF(SHA256(), length=32, salt=None, info=b"flask-webhooks: secrets at rest, 1").derive(raw)
    return base64.urlsafe_b64encode(key).decode()


class Vault:
    """Encrypts ("seals") secrets for the database, each bound to the place where it is stored.

    The encrypted text contains its place, such as `headers/<subscription>` or `secret/<subscription>/<id>`. So an
    attacker who can write to the database but has no key cannot copy it to another row or subscription: it does not
    open there. Texts of older versions contain no place, or only `secret/<id>`: they open until `rotate` binds them.

    :param keys: Fernet keys; the first encrypts, all decrypt. To change keys, put the new one first, `rotate` every
        row, then drop the old one.
    :raises SecretError: there are no keys, or one is no Fernet key.
    """

    def __init__(self, keys: Sequence[str | bytes]) -> None:
        fernets: list[Fernet] = []
        for number, key in enumerate(keys, start=1):
            fernet = _fernet(key)
            if fernet is None:
                raise SecretError(
                    f"Encryption key {number} of {len(keys)} is no Fernet key (32 bytes in URL-safe base64)."
                    " Make one with: cryptography.fernet.Fernet.generate_key()."
                )
            fernets.append(fernet)
        if not fernets:
            raise SecretError("There is no key to encrypt secrets with. Give at least one Fernet key.")
        self._fernets = MultiFernet(fernets)

    @classmethod
    def from_secret_key(cls, secret_key: str | bytes, fallbacks: Sequence[str | bytes] = ()) -> Vault:
        """Return a vault with keys derived from the app's `SECRET_KEY` and `SECRET_KEY_FALLBACKS`."""
        return cls([derive_key(key) for key in (secret_key, *fallbacks)])

    def __repr__(self) -> str:
        return "<Vault>"

    def seal(self, text: str, place: str = "") -> str:
        """Return the encrypted text, which differs at each call.

        :param place: where it is stored; if empty, it opens anywhere.
        """
        return self._fernets.encrypt(_bound(text, place).encode()).decode()

    def open(self, sealed: str, place: str = "") -> str:
        """Return the text that was sealed.

        :param place: where it was found; if empty, its place is not checked.
        :raises SecretError: no key fits, the sealed text was changed, or it was sealed for another place.
        """
        belongs, text = self._opened(sealed)
        if place and belongs and belongs not in (place, _without_subscription(place)):
            raise SecretError(
                "A stored secret belongs to another row, and was copied here. Check who can write to the database,"
                " then rotate the secret of this subscription."
            )
        return text

    def rotate(self, sealed: str, place: str = "") -> str:
        """Return the same text, sealed with the first key and bound to its place.

        :raises SecretError: as `open`.
        """
        text = self.open(sealed, place)
        return self.seal(text, place or self._opened(sealed)[0])

    def _opened(self, sealed: str) -> tuple[str, str]:
        """Return the place for which a text was sealed, which may be empty, and the text."""
        try:
            found = self._fernets.decrypt(sealed.encode()).decode()
        except InvalidToken as error:
            raise SecretError(
                "A stored secret opens with none of the encryption keys. Add the key it was sealed with to"
                " WEBHOOKS_ENCRYPTION_KEYS (or the old SECRET_KEY to SECRET_KEY_FALLBACKS)."
            ) from error
        if not found.startswith(_BOUND):
            return "", found
        place, _, text = found[1:].partition(_BOUND)
        return place, text


_BOUND = "\0"
"""Stands before and after a place: neither a secret nor JSON begins with it."""


def _bound(text: str, place: str) -> str:
    return f"{_BOUND}{place}{_BOUND}{text}" if place or text.startswith(_BOUND) else text


def _without_subscription(place: str) -> str:
    """Return the name that older versions gave to a place."""
    kind, *_, row_id = place.split("/")
    return f"{kind}/{row_id}"


def place_of(kind: t.Literal["secret", "headers", "certificate", "answer"], *ids: str) -> str:
    """Return the place of a sealed text: its kind, for a secret the id of its subscription, and the id of its row."""
    return "/".join((kind, *ids))


def _fernet(key: str | bytes) -> Fernet | None:
    try:
        return Fernet(key)
    except (ValueError, TypeError):
        return None
