"""Recognises private columns by their names and types: passwords, tokens, keys, one-time codes.

The law of this room: it guesses, so a line in the catalogue overrules it (`public`, `fields`). A name says it by the
kind of thing that it names; what only speaks *about* such a thing (its id, its type, how many, when) is none.
"""

from __future__ import annotations

import re
import typing as t

import sqlalchemy as sa

from .columns import AnyType, is_sealed
from .paths import AnyMapper

__all__ = ["private_columns", "sounds_private", "words_of"]

_NOUNS = (
    # passwords, by all their names
    r"\w*(passw|passphrase|passcode|secret|credential)\w*|pwd?|pwd?_?hash|pass_?hash|pass_(phrase|word|code)",
    r"(?:\w*_)?pin(_code|_hash|_enc|_iv)?",
    # tokens: a word that ends so, with what is made of one
    r"\w*tokens?(_?(hash|value|digest|enc))?|jwts?|jti|bearer|csrf\w*|nonce|cookies?",
    # keys that open something; others sort, or name a row
    r"(?:\w*_)?(api|private|encryption|decryption|signing|access|auth|ssh|master|hmac|session|shared|crypto|aes|rsa|pgp|gpg)_?keys?"
    r"(_(enc|hash|value|pem))?",
    r"(?:\w*_)?key_?(enc|encrypted|cipher|hash|iv|pem|material)",
    # what is hidden, and what it is hidden with
    r"\w+_enc|(?:\w*_)?(encrypted|cipher(text)?|salt|mnemonic|seed_phrase)(_\w+)?",
    # codes that give access once
    r"(?:\w*_)?[th]?otp(_\w+)?|cvv2?|cvc2?",
    r"(?:\w*_)?(recovery|backup|reset|verification|confirmation|activation|login|security|access|auth|scratch)_?codes?(_\w+)?",
    r"(?:\w*_)?magic_?link(_\w+)?",
)
_PRIVATE = re.compile("|".join(_NOUNS))
_COUNTS = frozenset(
    "num number count max min total is has can must should needs requires require allow allows".split()
)
"""What comes before: `num_tokens`, `has_password`."""
_ABOUT = frozenset(
    "id ids uid uuid type types kind kinds count counts name names label in out at on by until used uses expires "
    "expired expiry expiration ttl enabled disabled required set length len limit limits policy strength attempts "
    "tries failures status state scope scopes version algorithm algo issuer".split()
)
"""What comes after: `token_id`, `password_changed_at`."""
_NO_TEXT = (sa.Boolean, sa.Date, sa.DateTime, sa.Time, sa.Interval, sa.Enum)
"""Types whose values open nothing, whatever the column is called."""
_NUMBERS = (sa.Integer, sa.Numeric)
_DIGITS = re.compile(r"(?:\w*_)?(pin|[th]?otp|codes?|cvv2?|cvc2?|passw\w*|passcode)(_\w+)?")
"""What is secret though it is a number."""


def words_of(name: str) -> list[str]:
    """Return the words of a name: `userApiKey`, `user_api_key`."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name)
    return [word for word in re.split(r"[^a-z0-9]+", spaced.lower()) if word]


def sounds_private(name: str, kind: AnyType | None = None) -> bool:
    """Return whether a column with this name should not be sent to others.

    :param kind: type of the column that it is, if it is one.
    """
    words = words_of(name)
    if not words or words[0] in _COUNTS or words[-1] in _ABOUT or isinstance(kind, _NO_TEXT):
        return False
    whole = "_".join(words)
    if isinstance(kind, _NUMBERS) and not _DIGITS.fullmatch(whole):
        return False
    return _PRIVATE.fullmatch(whole) is not None


def private_columns(mapper: AnyMapper, keys: t.Collection[str]) -> list[str]:
    """Return the columns whose names or types say that they should not be sent: `password_hash`, `api_token`.

    :param keys: columns that are sent without a schema.
    """
    found = []
    for attr in mapper.column_attrs:
        column = attr.columns[0]
        names = {attr.key, str(getattr(column, "name", None) or attr.key)}
        sounds = attr.key in keys and any(sounds_private(name, column.type) for name in names)
        if sounds or is_sealed(column.type):
            found.append(attr.key)
    return found
