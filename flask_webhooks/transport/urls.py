"""Destination URLs: parsed strictly into one normal form. Pure, no I/O.

The law of this room: a URL that two parsers could read differently is refused, not repaired. The normal form is what
is saved, and requests go exactly to what was saved.
"""

from __future__ import annotations

import re
import typing as t
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import quote

import idna

from ..errors import AddressRefusedError, ErrorText, SubscriptionError
from .addresses import Address, Network, is_exempt, parse_address, refusal

__all__ = ["REFUSED", "Destination", "as_sent", "is_unfit_port", "parse", "refused", "refused_port"]

REFUSED: t.Final = ErrorText("url_refused")
"""The one text that owners see for every refused address or name: it reveals nothing about the network."""

LONGEST_URL: t.Final = 2048
"""Characters, before and after normalising."""

SERVICE_PORTS: t.Final = {
    1433: "SQL Server",
    1521: "Oracle",
    2049: "NFS",
    2181: "ZooKeeper",
    2375: "Docker",
    2376: "Docker",
    2379: "etcd",
    2380: "etcd",
    3306: "MySQL",
    3389: "Remote Desktop",
    5432: "PostgreSQL",
    5672: "AMQP",
    5984: "CouchDB",
    6379: "Redis",
    6443: "Kubernetes",
    8500: "Consul",
    9042: "Cassandra",
    9092: "Kafka",
    9200: "Elasticsearch",
    9300: "Elasticsearch",
    10250: "Kubernetes",
    10255: "Kubernetes",
    11211: "memcached",
    27017: "MongoDB",
}
"""Ports above 1023 of services that might interpret a request as their own protocol; they serve no webhooks."""

LOW_PORTS: t.Final = (80, 443)
"""The only allowed ports below 1024: the others belong to mail, remote shells, directories and file shares."""

_METADATA_NAMES: t.Final = frozenset(
    {"metadata.google.internal", "metadata.goog", "instance-data.ec2.internal"}
)
_URL: t.Final = re.compile(
    r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://(?P<authority>[^/?]*)(?P<target>.*)", re.DOTALL
)
_AUTHORITY: t.Final = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:]+)(?::(?P<port>[0-9]{1,5}))?")
_LABEL: t.Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)")
_NUMBER: t.Final = re.compile(r"[0-9]+|0x[0-9a-f]*")
_ASCII: t.Final = re.compile(r"[!-~]+")
_DEFAULT_PORTS: t.Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Destination:
    """A parsed URL."""

    url: str
    """The normal form."""
    scheme: str
    """`http` or `https`."""
    host: str
    """A-labels in lower case without a trailing dot, or an address without brackets."""
    port: int
    """Never `None`: 80 or 443 if the URL names none."""
    target: str
    """Path and query, as they go into the request line (RFC 9112, section 3.2.1)."""
    authority: str
    """The value of `Host`: with the port, unless it is the scheme's default (RFC 9110, section 7.2)."""
    address: Address | None
    """The address, where the URL spells one instead of a name."""


def refused(host: str, address: object, rule: str, text: ErrorText = REFUSED) -> AddressRefusedError:
    """Return the error for a destination that we never talk to.

    :param rule: the rule that refuses it; only the operator sees it.
    :param text: the text that the owner sees.
    """
    return AddressRefusedError(text, host=host, address=None if address is None else str(address), rule=rule)


def refused_port(host: str, address: object, port: int) -> AddressRefusedError:
    """Return the error for a refused port. Its text names the port, which reveals nothing but the owner's own URL."""
    service = SERVICE_PORTS.get(port)
    if service is None:
        text = ErrorText("url_low_port", port=port)
    else:
        text = ErrorText("url_service_port", port=port, service=service)
    return refused(host, address, f"port {port}", text)


def is_unfit_port(port: int, ports: Sequence[range] = ()) -> bool:
    """Whether a port is refused.

    :param ports: ports that the operator allows in addition.
    """
    is_low = port < 1024 and port not in LOW_PORTS
    return (is_low or port in SERVICE_PORTS) and not any(port in some for some in ports)


def parse(
    url: str,
    *,
    allow_http: bool = False,
    allowed: Sequence[Network] = (),
    ports: Sequence[range] = (),
    is_resolved: bool = True,
) -> Destination:
    """Return the destination that `url` names.

    A name is judged by its form only; `Dialer` judges the address that it resolves to.

    :param allowed: networks that the operator exempts. `localhost` is accepted if they contain a loopback address;
        other internal names (`*.local`, `*.internal`, a single label such as that of a container) if there is any
        exemption: then the operator expects internal receivers, and the addresses decide. They also decide about a
        refused port.
    :param ports: ports that the operator allows in addition.
    :param is_resolved: whether `Dialer` judges the addresses of names; it does not where a proxy connects.
    :raises AddressRefusedError: an address, name or port that we never talk to; carries one constant text.
    :raises SubscriptionError: any other fault of the URL; says how to write it.
    """
    scheme, authority, rest = _split(url, allow_http)
    match = _AUTHORITY.fullmatch(authority)
    if match is None:
        raise _malformed(ErrorText("url_form"))
    port = int(match["port"] or _DEFAULT_PORTS[scheme])
    if not 1 <= port <= 65535:
        raise _malformed(ErrorText("url_port"))
    host, address = _host(match["host"])
    if is_unfit_port(port, ports):
        may_be_exempt = bool(allowed) and is_resolved if address is None else is_exempt(address, allowed)
        if not may_be_exempt:
            raise refused_port(host, address, port)
    _judge(host, address, allowed)
    shown = f"[{host}]" if isinstance(address, IPv6Address) else host
    authority = shown if port == _DEFAULT_PORTS[scheme] else f"{shown}:{port}"
    target = _target(rest)
    normal = f"{scheme}://{authority}{target}"
    if len(normal) > LONGEST_URL:
        raise _malformed(ErrorText("url_too_long", most=LONGEST_URL))
    return Destination(normal, scheme, host, port, target, authority, address)


def as_sent(url: str) -> str:
    """Return a URL with path and query as they go into the request line; pure text, nothing is judged."""
    match = _URL.fullmatch(url)
    return f"{match['scheme']}://{match['authority']}{_target(match['target'])}" if match else url


def _target(rest: str) -> str:
    # A path without "/" before "?" is legal in a URL but not in a request line (RFC 9112, section 3.2.1).
    return quote(rest if rest.startswith("/") else f"/{rest}", safe="%/:?@!$&'()*+,;=~-._[]|")


def _malformed(text: ErrorText) -> SubscriptionError:
    return SubscriptionError(text, {"url": [text]})


def _split(url: str, allow_http: bool) -> tuple[str, str, str]:
    """Return scheme, authority and the rest; refuse characters and forms that parsers read differently."""
    if len(url) > LONGEST_URL:
        raise _malformed(ErrorText("url_too_long", most=LONGEST_URL))
    if any(_is_unfit(character) for character in url):
        raise _malformed(ErrorText("url_characters"))
    if "#" in url:
        raise _malformed(ErrorText("url_fragment"))
    match = _URL.fullmatch(url)
    scheme = match["scheme"].lower() if match else ""
    if match is None or scheme not in _DEFAULT_PORTS:
        raise _malformed(ErrorText("url_scheme"))
    if scheme == "http" and not allow_http:
        raise _malformed(ErrorText("url_http"))
    if "@" in match["authority"]:
        raise _malformed(ErrorText("url_credentials"))
    return scheme, match["authority"], match["target"]


def _is_unfit(character: str) -> bool:
    # C: control, format (zero width), surrogate, private, unassigned. Z: spaces and separators.
    return character == "\\" or (not "!" <= character <= "~" and unicodedata.category(character)[0] in "CZ")


def _host(text: str) -> tuple[str, Address | None]:
    """Return the host in normal form, and its address if it spells one."""
    if text.startswith("["):
        address = parse_address(text[1:-1])
        if not isinstance(address, IPv6Address):
            raise _malformed(ErrorText("url_brackets"))
        mapped = address.ipv4_mapped  # RFC 5952, section 5; str() does so only since Python 3.13
        return str(address) if mapped is None else f"::ffff:{mapped}", address
    host = _name(text)
    labels = host.split(".")
    # WHATWG URL, "ends in a number": resolvers read 0x7f.1, 0177.0.0.1 and 2130706433 as addresses too.
    if _NUMBER.fullmatch(labels[-1]):
        address = parse_address(host)
        if not isinstance(address, IPv4Address):
            raise _malformed(ErrorText("url_ipv4"))
        return host, address
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise _malformed(ErrorText("url_host"))
    return host, None


def _name(text: str) -> str:
    """Return the name as lower-case A-labels, without a trailing dot (RFC 5890, section 2.3.2.1)."""
    if not _ASCII.fullmatch(text):
        try:
            text = idna.encode(text, uts46=True).decode("ascii")
        except (idna.IDNAError, UnicodeError) as error:
            raise _malformed(ErrorText("url_international_host")) from error
    return text.lower().removesuffix(".")


def _judge(host: str, address: Address | None, allowed: Sequence[Network]) -> None:
    if address is not None:
        rule = refusal(address, allowed)
    elif host == "localhost" or host.endswith(".localhost"):
        loopback = any(refusal(home, allowed) is None for home in _LOOPBACK)
        rule = None if loopback else "name of this host (RFC 6761)"
    elif host in _METADATA_NAMES:
        rule = "name of a cloud metadata service"
    elif not allowed and ("." not in host or host.endswith((".local", ".internal"))):
        rule = "internal name"
    else:
        rule = None
    if rule is not None:
        raise refused(host, address, rule)


_LOOPBACK: t.Final = (IPv4Address("127.0.0.1"), IPv6Address("::1"))
