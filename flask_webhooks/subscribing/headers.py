"""Custom headers of a subscription: which are taken, and how they are kept.

A customer may name a header and we send it, so this is the place where somebody could try to smuggle a second
request, pass for us, or break a connection that other deliveries share.
"""

from __future__ import annotations

import json
import re
import typing as t
from collections.abc import Mapping

if t.TYPE_CHECKING:
    from ..signing import Vault

__all__ = ["LONGEST_VALUE", "MOST_BYTES", "check", "merged", "names", "open_headers", "seal"]

LONGEST_NAME, LONGEST_VALUE, MOST_BYTES = 128, 4096, 8192
"""Characters of one name and one value, and of all together: below what common servers accept in one request."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110, section 5.6.2
_VALUE = re.compile(r"[!-~]([\t -~]*[!-~])?|")  # visible ASCII, spaces inside (RFC 9110, section 5.5)
_RESERVED = frozenset(
    # Ours, or the connection's (RFC 9110, section 7.6.1), or what says where a request came from.
    "accept-encoding connection content-encoding content-length content-type cookie date expect forwarded host "
    "keep-alive proxy-authenticate proxy-authorization proxy-connection set-cookie te trailer transfer-encoding "
    "upgrade user-agent via".split()
)
_RESERVED_PREFIXES = ("webhook-", "x-forwarded-", "proxy-", "sec-")


def check(headers: object, most: int) -> tuple[dict[str, str | None], list[str]]:
    """Return the headers as they were given, and what is wrong with them; None as a value removes a header.

    :param most: how many there may be.
    """
    if headers is None:
        return {}, []
    if not isinstance(headers, Mapping):
        return {}, ['Give an object of names and values, such as {"X-Api-Key": "…"}.']
    if len(headers) > most:
        return {}, [f"There are {len(headers)} headers; at most {most} are allowed."]
    faults = [fault for name, value in headers.items() for fault in _faults(name, value)]
    folded = {str(name).lower() for name in headers}
    if len(folded) < len(headers):
        faults.append("A name is there twice: the case of its letters does not matter.")
    size = sum(len(str(name)) + len(value or "") for name, value in headers.items() if _is_value(value))
    if size > MOST_BYTES:
        faults.append(f"Names and values have {size} characters together; at most {MOST_BYTES} are allowed.")
    return dict(headers), faults


def _is_value(value: object) -> bool:
    return value is None or isinstance(value, str)


def _faults(name: object, value: object) -> t.Iterator[str]:
    shown = repr(name)[:60]  # repr: a control character must not reach whoever reads the message
    if not isinstance(name, str) or not _TOKEN.fullmatch(name) or len(name) > LONGEST_NAME:
        yield f"{shown} is no header name: use letters, digits and hyphens, at most {LONGEST_NAME}."
    elif name.lower() in _RESERVED or name.lower().startswith(_RESERVED_PREFIXES):
        yield f"{shown} cannot be set: it belongs to the connection or to the webhook itself."
    if not _is_value(value):
        yield f"The value of {shown} must be text."
    elif isinstance(value, str) and (not _VALUE.fullmatch(value) or len(value) > LONGEST_VALUE):
        yield (
            f"The value of {shown} must be printable ASCII without line breaks, without spaces at its ends, at most "
            f"{LONGEST_VALUE} characters."
        )


def merged(known: Mapping[str, str], given: Mapping[str, str | None]) -> dict[str, str]:
    """Return `known` with what was given; None removes, whatever the case of the letters."""
    replaced = {name.lower() for name in given}
    kept = {name: value for name, value in known.items() if name.lower() not in replaced}
    return kept | {name: value for name, value in given.items() if value is not None}


def seal(vault: Vault, headers: Mapping[str, str]) -> str | None:
    """Return headers as they are kept: an encrypted JSON object; None for none."""
    return vault.seal(json.dumps(dict(headers))) if headers else None


def open_headers(vault: Vault, sealed: str | None) -> dict[str, str]:
    """Return what `seal` was given.

    :raises SecretError: no key of the vault fits.
    """
    return dict(json.loads(vault.open(sealed))) if sealed else {}


def names(vault: Vault, sealed: str | None) -> list[str]:
    """Return the names alone, sorted: all that anybody is ever shown. Values may be credentials."""
    return sorted(open_headers(vault, sealed))
