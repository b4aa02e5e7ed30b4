"""Which IP addresses we may send to: pure policy, no I/O.

The law of this room: the address that will be connected to is judged, never its spelling. An IPv6 address that embeds
an IPv4 address (mapped, NAT64) is judged as that IPv4. Of the rest of IPv6 only 2000::/3 is allowed, so a range that is
assigned outside of it in the future is refused without a change here.

`ipaddress.is_global` is not enough: on Python 3.11 it accepts multicast, `::127.0.0.1`, `64:ff9b::/96`,
`168.63.129.16` and more. `microsoft-antissrf` was considered: its list (1.0.0) refuses nothing that this one
accepts, has no entries for the mapped, compatible and ISATAP forms, and the library brings a second way of connecting.
"""

from __future__ import annotations

import ipaddress
import typing as t
from collections.abc import Sequence

__all__ = ["Address", "Network", "effective", "is_exempt", "parse_address", "refusal"]

Address: t.TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
Network: t.TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

# IANA IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890), plus addresses of cloud metadata services.
_V4_REFUSED: t.Final = {
    ipaddress.IPv4Network(network): rule
    for network, rule in {
        "0.0.0.0/8": "this host and network (RFC 1122)",
        "10.0.0.0/8": "private (RFC 1918)",
        "100.64.0.0/10": "carrier NAT (RFC 6598); Alibaba metadata",
        "127.0.0.0/8": "loopback (RFC 1122)",
        "168.63.129.16/32": "Azure wire server",
        "169.254.0.0/16": "link-local (RFC 3927); cloud metadata",
        "172.16.0.0/12": "private (RFC 1918)",
        "192.0.0.0/24": "IETF protocols (RFC 6890); Oracle metadata",
        "192.0.2.0/24": "documentation (RFC 5737)",
        "192.31.196.0/24": "AS112 (RFC 7535)",
        "192.52.193.0/24": "AMT (RFC 7450)",
        "192.88.99.0/24": "6to4 relays (RFC 7526)",
        "192.168.0.0/16": "private (RFC 1918)",
        "192.175.48.0/24": "AS112 (RFC 7534)",
        "198.18.0.0/15": "benchmarking (RFC 2544)",
        "198.51.100.0/24": "documentation (RFC 5737)",
        "203.0.113.0/24": "documentation (RFC 5737)",
        "224.0.0.0/4": "multicast (RFC 5771)",
        "240.0.0.0/4": "reserved (RFC 1112) and broadcast",
    }.items()
}
_V6_GLOBAL: t.Final = ipaddress.IPv6Network("2000::/3")
_V6_REFUSED: t.Final = {
    ipaddress.IPv6Network(network): rule
    for network, rule in {
        "2001::/23": "IETF protocols (RFC 2928): Teredo, ORCHID, benchmarking",
        "2001:db8::/32": "documentation (RFC 3849)",
        "2002::/16": "6to4 (RFC 3056)",
        "2620:4f:8000::/48": "AS112 (RFC 7534)",
        "3fff::/20": "documentation (RFC 9637)",
    }.items()
}
_NAT64: t.Final = ipaddress.IPv6Network("64:ff9b::/96")
_ISATAP: t.Final = frozenset({0x00005EFE, 0x02005EFE})
"""First half of an ISATAP interface identifier (RFC 5214, section 6.1); the other half is an IPv4 address."""


def parse_address(text: str) -> Address | None:
    """Return the address that `text` spells in canonical form, or `None` if it is anything else, such as a name."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def effective(address: Address) -> Address:
    """Return the IPv4 address embedded in a mapped or NAT64 address, otherwise the address itself.

    NAT64 is not refused, because a host with IPv6 only reaches every IPv4 receiver through it (RFC 6147).
    """
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address


def is_exempt(address: Address, allowed: Sequence[Network]) -> bool:
    """Whether the operator's exemptions contain this address, or the IPv4 address embedded in it."""
    target = effective(address)
    return any(target.version == network.version and target in network for network in allowed)


def refusal(address: Address, allowed: Sequence[Network] = ()) -> str | None:
    """Return the rule that refuses `address`, or `None` if it is allowed.

    :param allowed: the operator's exemptions, compared with the embedded IPv4 address if there is one: `127.0.0.0/8`
        also exempts `::ffff:127.0.0.1`, and `::/0` exempts no IPv4.
    """
    if isinstance(address, ipaddress.IPv6Address) and address.scope_id:
        return "scoped address (RFC 4007)"
    if is_exempt(address, allowed):
        return None
    target = effective(address)
    if isinstance(target, ipaddress.IPv4Address):
        return _first_rule(target, _V4_REFUSED)
    if target not in _V6_GLOBAL:
        return "outside 2000::/3 (RFC 4291)"
    if (int(target) >> 32) & 0xFFFFFFFF in _ISATAP:
        return "ISATAP (RFC 5214)"
    return _first_rule(target, _V6_REFUSED)


def _first_rule(address: Address, refused: t.Mapping[t.Any, str]) -> str | None:
    return next((f"{network} {rule}" for network, rule in refused.items() if address in network), None)
