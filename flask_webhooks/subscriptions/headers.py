"""Custom headers of a subscription: which ones are accepted, and how they are stored.

We send headers that a customer chooses. So a customer could try to smuggle a second request, to impersonate us or a
proxy, or to break a connection that other deliveries share.
"""

from __future__ import annotations

import json
import re
import typing as t
from collections.abc import Mapping

from ..errors import ErrorText
from ..signing import place_of
from ..transport import is_token

if t.TYPE_CHECKING:
    from ..signing import Vault

__all__ = ["LONGEST_VALUE", "MOST_BYTES", "check", "merged", "names", "open_headers", "seal"]

LONGEST_NAME, LONGEST_VALUE, MOST_BYTES = 128, 4096, 8192
"""Characters of one name and one value, and of all together: below what common servers accept in one request."""

_VALUE = re.compile(r"[!-~]([\t -~]*[!-~])?|")  # visible ASCII, spaces inside (RFC 9110, section 5.5)
_RESERVED = frozenset(
    # Ours, or the connection's (RFC 9110, section 7.6.1).
    "accept-encoding connection content-encoding content-length content-type cookie date expect host http2-settings "
    "keep-alive max-forwards set-cookie te trailer transfer-encoding upgrade user-agent "
    # What proxies say of a request: who sent it, from where, how and to what. CGI makes HTTP_PROXY of `Proxy`, which
    # many programs read as the proxy to use (CVE-2016-5385).
    "ali-cdn-real-ip cdn-loop cf-ipcountry cf-ray cf-visitor client-ip do-connecting-ip early-data fly-client-ip "
    "front-end-https http-client-ip incap-client-ip proxy remote-addr remote-email remote-groups remote-name "
    "remote-user true-client-ip via wl-proxy-client-ip wl-proxy-ssl x-amzn-trace-id x-arr-ssl x-authenticated-user "
    "x-client-ip x-cluster-client-ip x-host x-http-host-override x-http-method x-http-method-override "
    "x-method-override x-nf-client-connection-ip x-originating-ip x-remote-addr x-remote-ip x-remote-user x-scheme "
    "x-script-name x-sucuri-clientip x-url-scheme x-webauth-user".split()
)
_RESERVED_PREFIXES = tuple(
    "webhook- proxy- sec- ssl-client- forwarded x-forwarded x-proxy x-original- x-rewrite- x-real- x-accel- "
    "x-amzn-oidc- x-appengine- x-auth-request- x-authentik- x-azure-clientip x-azure-socketip x-client-cert "
    "x-client-verify x-envoy- x-goog-authenticated-user- x-goog-iap- x-middleware- x-ms-client-principal x-pomerium- "
    "x-ssl- x-vercel- cf-access-authenticated- cf-access-jwt- cf-connecting- cloudfront-viewer- fastly-client "
    "tailscale-user-".split()
)


def normal(name: str) -> str:
    """Return a name as a server may read it: CGI and WSGI read `-` and `_` as one, and some servers all other signs."""
    return re.sub(r"[^a-z0-9]", "-", name.lower())


def is_reserved(name: str) -> bool:
    """Whether a header is ours, the connection's, or one in which proxies describe a request."""
    return normal(name) in _RESERVED or normal(name).startswith(_RESERVED_PREFIXES)


def check(headers: object, most: int) -> tuple[dict[str, str | None], list[ErrorText]]:
    """Return the headers as they were given, and what is wrong with them; None as a value removes a header.

    :param most: how many there may be.
    """
    if headers is None:
        return {}, []
    if not isinstance(headers, Mapping):
        return {}, [ErrorText("headers_not_an_object")]
    if len(headers) > most:
        return {}, [ErrorText("too_many_headers", count=len(headers), most=most)]
    faults = [fault for name, value in headers.items() for fault in _faults(name, value)]
    given = [normal(str(name)) for name, value in headers.items() if value is not None]
    if len({*given}) < len(given) or len({str(name).lower() for name in headers}) < len(headers):
        faults.append(ErrorText("header_twice"))
    size = sum(len(str(name)) + len(value or "") for name, value in headers.items() if _is_value(value))
    if size > MOST_BYTES:
        faults.append(ErrorText("headers_too_large", size=size, most=MOST_BYTES))
    return dict(headers), faults


def _is_value(value: object) -> bool:
    return value is None or isinstance(value, str)


def _faults(name: object, value: object) -> t.Iterator[ErrorText]:
    shown = repr(name)[:60]  # repr, so that no control character gets into a message
    if not isinstance(name, str) or not is_token(name) or len(name) > LONGEST_NAME:
        yield ErrorText("header_name", name=shown, most=LONGEST_NAME)
    elif value is not None and is_reserved(name):  # what an older version took can be removed
        yield ErrorText("header_reserved", name=shown)
    if not _is_value(value):
        yield ErrorText("header_value_not_text", name=shown)
    elif isinstance(value, str) and (not _VALUE.fullmatch(value) or len(value) > LONGEST_VALUE):
        yield ErrorText("header_value", name=shown, most=LONGEST_VALUE)


def merged(known: Mapping[str, str], given: Mapping[str, str | None]) -> dict[str, str]:
    """Return `known` with what was given; None removes, whatever the case of the letters."""
    replaced = {name.lower() for name in given}
    kept = {name: value for name, value in known.items() if name.lower() not in replaced}
    return kept | {name: value for name, value in given.items() if value is not None}


def seal(vault: Vault, headers: Mapping[str, str], subscription_id: str) -> str | None:
    """Return headers as they are kept: an encrypted JSON object; None for none."""
    return vault.seal(json.dumps(dict(headers)), place_of("headers", subscription_id)) if headers else None


def open_headers(vault: Vault, sealed: str | None, subscription_id: str = "") -> dict[str, str]:
    """Return what `seal` was given.

    :param subscription_id: where they were found; empty: it does not matter.
    :raises SecretError: no key of the vault fits, or they are another subscription's.
    """
    place = place_of("headers", subscription_id) if subscription_id else ""
    return dict(json.loads(vault.open(sealed, place))) if sealed else {}


def names(vault: Vault, sealed: str | None, subscription_id: str = "") -> list[str]:
    """Return the names alone, sorted. No door shows the values: they may be credentials."""
    return sorted(open_headers(vault, sealed, subscription_id))
