"""The guard: which URLs can be saved, and which addresses are connected to."""

# Letters that only look like others are what is tested here.
# ruff: noqa: RUF001

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
import threading
import time
import typing as t

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flask_webhooks.errors import AddressRefusedError, SubscriptionError
from flask_webhooks.outcome import Failure
from flask_webhooks.transport import REFUSED, Transport
from flask_webhooks.transport.addresses import refusal
from flask_webhooks.transport.dns import MOST_LOOKUPS, LookupFailed, Names
from tests.receivers import Receiver, ok
from tests.transport.conftest import Make, outbound
from tests.transport.nameserver import NameServer

BAD_ADDRESSES = """
0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.100.100.200 100.127.255.255 127.0.0.1 127.255.255.254
168.63.129.16 169.254.169.254 169.254.170.2 172.16.0.1 172.31.255.255 192.0.0.8 192.0.0.9 192.0.0.192 192.0.2.1
192.31.196.1 192.52.193.1 192.88.99.1 192.168.1.1 192.175.48.1 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.9
224.0.0.1 239.1.1.1 240.0.0.1 255.255.255.255
:: ::1 ::127.0.0.1 ::a00:1 ::ffff:127.0.0.1 ::ffff:7f00:1 ::ffff:169.254.169.254 ::ffff:a9fe:a9fe
::ffff:0:127.0.0.1 64:ff9b::7f00:1 64:ff9b::127.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b:1::7f00:1 2002:7f00:1::1
2002:a00:1:: 2001::1 2001:0:7f00:1:: 2001:db8::1 2001:20::1 2001:2::1 3fff::1 5f00::1 fc00::1 fd00:ec2::254
fd20:ce::254 fe80::1 fe80::1%eth0 2606:4700::1111%1 fec0::1 ff02::1 ff0e::1 100::1 4000::1 2620:4f:8000::1
2600::5efe:7f00:1 2600::200:5efe:7f00:1
""".split()
GOOD_ADDRESSES = """
1.1.1.1 8.8.8.8 93.184.216.34 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.1 126.255.255.255 128.0.0.0
168.63.129.15 168.63.129.17 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.1 192.0.1.1 192.167.255.255
192.169.0.0 198.17.255.255 198.20.0.1 223.255.255.1 2606:4700::1111 2a00:1450:4001::200e 2001:200::1
2001:4860:4860::8888 2003::1 64:ff9b::808:808 ::ffff:8.8.8.8
""".split()

BAD_SPELLINGS = {
    "decimal": "https://2130706433/",
    "hexadecimal": "https://0x7f000001/",
    "hexadecimal parts": "https://0x7f.0x0.0x0.0x1/",
    "hexadecimal and short": "https://0x7f.1/",
    "octal": "https://0177.0.0.1/",
    "leading zeros": "https://127.000.000.001/",
    "two parts": "https://127.1/",
    "three parts": "https://127.0.1/",
    "zero": "https://0/",
    "empty hexadecimal": "https://0x/",
    "overflow": "https://4294967297/",
    "part too large": "https://127.0.0.256/",
    "five parts": "https://127.0.0.0.1/",
    "public in decimal": "https://134744072/",
    "trailing dot": "https://127.0.0.1./",
    "metadata with a trailing dot": "https://169.254.169.254./latest/meta-data/",
    "two trailing dots": "https://127.0.0.1../",
    "circled digits": "https://①②⑦.⓪.⓪.①/",
    "full-width digits": "https://１２７.０.０.１/",
    "ideographic full stops": "https://127。0。0。1/",
    "half-width full stops": "https://127｡0｡0｡1/",
    "mathematical letters": "https://𝓁𝑜𝒸𝒶𝓁𝒽𝑜𝓈𝓉/",
    "percent": "https://%31%32%37.0.0.1/",
    "percent zero": "https://127.0.0.1%00.example.com/",
    "IPv6 loopback": "https://[::1]/",
    "IPv6 in full": "https://[0:0:0:0:0:0:0:1]/",
    "IPv6 unspecified": "https://[::]/",
    "mapped": "https://[::ffff:127.0.0.1]/",
    "mapped in hexadecimal": "https://[::ffff:7f00:1]/",
    "mapped in full": "https://[0:0:0:0:0:ffff:7f00:1]/",
    "compatible": "https://[::127.0.0.1]/",
    "NAT64": "https://[64:ff9b::7f00:1]/",
    "6to4": "https://[2002:7f00:1::1]/",
    "Teredo": "https://[2001:0:7f00:1::]/",
    "zone": "https://[fe80::1%25eth0]/",
    "zone unescaped": "https://[fe80::1%eth0]/",
    "doubled brackets": "https://[[::1]]/",
    "IPv4 in brackets": "https://[127.0.0.1]/",
    "IPv6 without brackets": "https://::1/",
    "half a bracket": "https://[::1/",
    "future address": "https://[v1.127]/",
    "localhost": "https://localhost/",
    "localhost in capitals": "https://LOCALHOST/",
    "localhost with a dot": "https://localhost./",
    "below localhost": "https://a.localhost/",
    "local": "https://printer.local/",
    "internal": "https://db.corp.internal/",
    "metadata": "https://metadata.google.internal/",
    "metadata in capitals": "https://Metadata.Google.Internal./",
    "metadata, the other name": "https://metadata.goog/",
    "single label": "https://redis/",
    "single label with a dot": "https://redis./",
    "user": "https://user@example.com/",
    "user and password": "https://user:password@127.0.0.1/",
    "host as user": "https://example.com:80@127.0.0.1/",
    "host as password": "https://a:example.com@127.0.0.1/",
    "empty user": "https://@127.0.0.1/",
    "backslash and at": "https://127.0.0.1\\@example.com/",
    "backslashes": "https:\\\\127.0.0.1/",
    "fragment and at": "https://127.0.0.1#@example.com/",
    "fragment": "https://example.com/#fragment",
    "question mark and at": "https://127.0.0.1?@example.com/",
    "three slashes": "https:///127.0.0.1/",
    "one slash": "https:/127.0.0.1/",
    "no slash": "https:127.0.0.1",
    "no scheme": "//127.0.0.1/",
    "no scheme or slashes": "example.com/",
    "file": "file:///etc/passwd",
    "gopher": "gopher://127.0.0.1:6379/_x",
    "ftp": "ftp://example.com/",
    "http when it is off": "http://example.com/",
    "javascript": "javascript:alert(1)",
    "empty": "",
    "blank": " ",
    "no host": "https://",
    "no host but a port": "https://:443/",
    "leading space": " https://example.com/",
    "trailing newline": "https://example.com/\n",
    "tab in the host": "https://127.0.\t0.1/",
    "line break in the path": "https://example.com/\r\nHost: 127.0.0.1",
    "space in the path": "https://example.com/a b",
    "zero byte": "https://example.com/\x00",
    "delete": "https://example.com/\x7f",
    "zero-width space": "https://exam\u200bple.com/",
    "soft hyphen": "https://exam\u00adple.com/",
    "right-to-left": "https://\u202eexample.com/",
    "byte order mark": "\ufeffhttps://example.com/",
    "lone surrogate": "https://example.com/\ud800",
    "port below 1024": "https://example.com:22/",
    "mail": "https://example.com:25/",
    "port 0": "https://example.com:0/",
    "port too large": "https://example.com:65536/",
    "port far too large": "https://example.com:999999/",
    "port in words": "https://example.com:https/",
    "two ports": "https://example.com:443:443/",
    "negative port": "https://example.com:-1/",
    "Arabic port": "https://example.com:٤٤٣/",
    "Redis": "https://example.com:6379/",
    "PostgreSQL": "https://example.com:5432/",
    "Docker": "https://example.com:2375/",
    "memcached": "https://example.com:11211/",
    "empty label": "https://example..com/",
    "leading dot": "https://.example.com/",
    "leading hyphen": "https://-example.com/",
    "long label": f"https://{'a' * 64}.com/",
    "long name": f"https://{'a.' * 130}com/",
    "long URL": f"https://example.com/{'a' * 2048}",
    "long once normal": f"https://example.com/{'ü' * 400}",
    "asterisk": "https://*.example.com/",
    "comma": "https://example.com,127.0.0.1/",
    "semicolon": "https://example.com;127.0.0.1/",
    "bad punycode": "https://xn--a.com\u00fc/",
}

GOOD_URLS = {
    "https://example.com": "https://example.com/",
    "HTTPS://Example.COM/Path": "https://example.com/Path",
    "https://example.com./": "https://example.com/",
    "https://example.com:443/": "https://example.com/",
    "https://example.com:8443/a": "https://example.com:8443/a",
    "https://example.com:80/": "https://example.com:80/",
    "https://example.com?a=1": "https://example.com/?a=1",
    "https://example.com/a//b/../c?d=%20&e[]=@": "https://example.com/a//b/../c?d=%20&e[]=@",
    "https://example.com/ü?q=ß": "https://example.com/%C3%BC?q=%C3%9F",
    'https://example.com/"<>^`{}': "https://example.com/%22%3C%3E%5E%60%7B%7D",
    "https://bücher.example/": "https://xn--bcher-kva.example/",
    "https://BÜCHER.example/": "https://xn--bcher-kva.example/",
    "https://xn--bcher-kva.example/": "https://xn--bcher-kva.example/",
    "https://例え.テスト/": "https://xn--r8jz45g.xn--zckzah/",
    "https://hooks_v2.example.com/": "https://hooks_v2.example.com/",
    "https://1.example.com/": "https://1.example.com/",
    "https://a.1b/": "https://a.1b/",
    "https://8.8.8.8/": "https://8.8.8.8/",
    "https://8.8.8.8.:443/": "https://8.8.8.8/",
    "https://[2606:4700:0:0:0:0:0:1111]:8443/": "https://[2606:4700::1111]:8443/",
    "https://[2606:4700::1111]/": "https://[2606:4700::1111]/",
    "https://[::ffff:808:808]/": "https://[::ffff:8.8.8.8]/",
    "https://notlocalhost.com/": "https://notlocalhost.com/",
    "https://local.example.com/": "https://local.example.com/",
}


@pytest.fixture
def guarded(make: Make) -> Transport:
    """A transport as in production: https only, nothing exempt, and a resolver that must not be asked."""

    def never(*args: t.Any, **kwargs: t.Any) -> t.Any:
        raise AssertionError(args)

    return make(allow_http=False, allowed_networks=(), resolver=never)


@pytest.mark.parametrize("text", BAD_ADDRESSES)
def test_bad_addresses_are_refused(text: str) -> None:
    assert refusal(ipaddress.ip_address(text)) is not None


@pytest.mark.parametrize("text", GOOD_ADDRESSES)
def test_good_addresses_are_allowed(text: str) -> None:
    assert refusal(ipaddress.ip_address(text)) is None


@pytest.mark.parametrize("url", BAD_SPELLINGS.values(), ids=BAD_SPELLINGS)
def test_bad_urls_are_refused_when_saved_and_when_sent_to(guarded: Transport, url: str) -> None:
    with pytest.raises(SubscriptionError) as caught:
        guarded.check(url)

    assert list(caught.value.fields) == ["url"]
    assert guarded.send(outbound(url)).failure is Failure.BLOCKED_ADDRESS


@pytest.mark.parametrize(("url", "normal"), GOOD_URLS.items(), ids=GOOD_URLS)
def test_good_urls_have_one_normal_form(guarded: Transport, url: str, normal: str) -> None:
    assert guarded.check(url, resolve=False) == normal
    assert guarded.check(normal, resolve=False) == normal


@pytest.mark.parametrize(
    "url",
    [
        "https://10.0.0.1/",
        "https://localhost/",
        "https://db.internal/",
        "https://redis/",
    ],
)
def test_the_owner_sees_one_text_and_the_operator_the_rule(guarded: Transport, url: str) -> None:
    with pytest.raises(AddressRefusedError) as caught:
        guarded.check(url)
    reply = guarded.send(outbound(url))

    assert str(caught.value) == REFUSED == reply.detail
    assert caught.value.fields == {"url": [REFUSED]}
    host = url[8:-1].partition(":")[0]
    assert caught.value.detail.startswith(host)
    assert reply.log == caught.value.detail
    assert len(reply.log) > len(host) + 4


def test_every_port_of_the_list_is_refused_and_its_neighbours_are_not(guarded: Transport) -> None:
    for port in (80, 443, 1024, 3000, 5000, 8000, 8080, 8443, 9000, 65535):
        assert guarded.check(f"https://example.com:{port}/", resolve=False)
    for port in (1, 21, 22, 23, 25, 110, 143, 444, 445, 993, 1023):
        with pytest.raises(AddressRefusedError):
            guarded.check(f"https://example.com:{port}/", resolve=False)


@pytest.mark.parametrize(
    ("port", "text"),
    [
        (444, "Port 444 cannot be used for webhooks: of those below 1024, only 80 and 443 can be."),
        (6379, "Port 6379 cannot be used for webhooks: it is the port of Redis."),
        (0, "The port must be a number from 1 to 65535."),
        (65536, "The port must be a number from 1 to 65535."),
    ],
)
@pytest.mark.parametrize("host", ["hooks.example.com", "8.8.8.8", "[2606:4700::1111]", "10.0.0.1"])
def test_a_port_is_refused_with_its_number_and_the_rule(
    guarded: Transport, host: str, port: int, text: str
) -> None:
    url = f"https://{host}:{port}/"
    with pytest.raises(SubscriptionError) as caught:
        guarded.check(url)

    assert caught.value.fields == {"url": [text]}
    assert guarded.send(outbound(url)).detail == text


def test_allowed_networks_lift_the_rule_about_ports_for_themselves(make: Make) -> None:
    answers = {
        "inside.example.com": "10.1.2.3",
        "outside.example.com": "8.8.8.8",
        "both.example.com": "10.1.2.3",
    }

    def resolve(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        found = [answers[host]] + (["8.8.8.8"] if host.startswith("both") else [])
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (text, port)) for text in found]

    transport = make(allowed_networks=[TEN], resolver=resolve)
    for port in (444, 6379):
        for host in ("10.1.2.3", "[::ffff:10.1.2.3]", "inside.example.com"):
            assert transport.check(f"https://{host}:{port}/")
        for host in ("8.8.8.8", "[2606:4700::1111]", "outside.example.com", "both.example.com"):
            with pytest.raises(AddressRefusedError, match=f"Port {port} "):
                transport.check(f"https://{host}:{port}/")
            assert transport.send(outbound(f"https://{host}:{port}/")).failure is Failure.BLOCKED_ADDRESS


def test_where_a_proxy_resolves_names_their_ports_are_not_exempt(make: Make) -> None:
    transport = make(allowed_networks=[TEN], proxy="http://127.0.0.1:1/")

    assert transport.check("https://10.1.2.3:444/")
    with pytest.raises(AddressRefusedError, match="Port 444 "):
        transport.check("https://inside.example.com:444/")


def test_allowed_ports_may_be_used_by_everybody(make: Make) -> None:
    transport = make(allowed_networks=(), allowed_ports=(range(444, 445), range(6000, 7000)))
    for port in (443, 444, 6379, 8080):
        assert transport.check(f"https://hooks.example.com:{port}/", resolve=False)
    for port in (22, 445, 5432):
        with pytest.raises(AddressRefusedError, match=f"Port {port} "):
            transport.check(f"https://hooks.example.com:{port}/", resolve=False)
    with pytest.raises(AddressRefusedError, match="public internet"):
        transport.check("https://10.0.0.1:444/")


def test_a_port_of_an_allowed_network_is_reached(make: Make) -> None:
    with Receiver(ok(), port=free_low_port()) as receiver:
        reply = make().send(outbound(receiver.url()))

        assert (reply.failure, receiver.port < 1024) == (None, True)


def free_low_port() -> int:
    """A free port below 1024."""
    for port in range(700, 1000):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    pytest.fail("no port below 1024 may be used")


@given(st.text(max_size=60) | st.text(max_size=40).map(lambda text: f"https://{text}"))
@example("https://[")
@example("https://xn--/")
@example("https://\u1e9e.com/")
def test_any_text_is_a_url_or_our_error(text: str) -> None:
    transport = _FUZZED
    try:
        normal = transport.check(text, resolve=False)
    except SubscriptionError:
        return
    assert transport.check(normal, resolve=False) == normal
    assert normal.isascii()
    assert normal.startswith("https://")


_FUZZED = Transport(
    timeout=(1, 1), allow_http=False, allowed_networks=(), response_limit=1, pool_size=1, verify=False
)


def _spellings(number: int) -> list[str]:
    """Return ways to write an IPv4 address that some parser or resolver understands."""
    a, b, c, d = number >> 24, number >> 16 & 255, number >> 8 & 255, number & 255
    return [
        f"{a}.{b}.{c}.{d}",
        f"{a}.{b}.{c}.{d}.",
        str(number),
        hex(number),
        oct(number).replace("o", ""),
        f"{a}.{number & 0xFFFFFF}",
        f"{a}.{b}.{number & 0xFFFF}",
        f"0x{a:x}.0x{b:x}.0x{c:x}.0x{d:x}",
        f"0{a:o}.0{b:o}.0{c:o}.0{d:o}",
        f"{a}。{b}｡{c}．{d}",
        "".join(chr(0xFF10 + int(each)) if each.isdigit() else each for each in f"{a}.{b}.{c}.{d}"),
        f"[::ffff:{a}.{b}.{c}.{d}]",
        f"[::ffff:{number >> 16:x}:{number & 0xFFFF:x}]",
        f"[::{a}.{b}.{c}.{d}]",
        f"[::ffff:0:{a}.{b}.{c}.{d}]",
        f"[64:ff9b::{a}.{b}.{c}.{d}]",
        f"[64:ff9b:1::{a}.{b}.{c}.{d}]",
        f"[2002:{number >> 16:x}:{number & 0xFFFF:x}::1]",
        f"[2001:0:{number >> 16:x}:{number & 0xFFFF:x}::]",
        f"[2600::5efe:{a}.{b}.{c}.{d}]",
    ]


_PRIVATE = [
    ipaddress.ip_network(text)
    for text in "0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.168.0.0/16 "
    "198.18.0.0/15 224.0.0.0/4 240.0.0.0/4".split()
]


@given(st.sampled_from(_PRIVATE), st.integers(0, 2**32 - 1))
def test_a_blocked_address_is_refused_however_it_is_spelled(
    network: ipaddress.IPv4Network, host: int
) -> None:
    number = int(network.network_address) | host & int(network.hostmask)

    for spelling in _spellings(number):
        with pytest.raises(SubscriptionError):
            _FUZZED.check(f"https://{spelling}/", resolve=False)


@given(st.ip_addresses(v=4))
def test_what_the_standard_library_calls_private_is_refused(address: ipaddress.IPv4Address) -> None:
    if not address.is_global or address.is_multicast:
        assert refusal(address) is not None


@given(st.ip_addresses(v=6))
def test_also_in_ipv6(address: ipaddress.IPv6Address) -> None:
    if address.ipv4_mapped is None and (not address.is_global or address.is_multicast):
        assert refusal(address) is not None


# Exemptions

TEN = ipaddress.ip_network("10.0.0.0/8")


def test_loopback_exempt_lets_localhost_in(make: Make) -> None:
    transport = make(allow_http=False)

    for url in ("https://localhost/", "https://127.0.0.1:5000/", "https://[::1]/", "https://app.localhost/"):
        assert transport.check(url, resolve=False) == url
    for url in ("https://10.0.0.1/", "https://[::ffff:10.0.0.1]/", "https://metadata.google.internal/"):
        with pytest.raises(AddressRefusedError):
            transport.check(url, resolve=False)


def test_another_exemption_does_not_let_localhost_in(make: Make) -> None:
    transport = make(allow_http=False, allowed_networks=[TEN])

    assert transport.check("https://10.1.2.3/", resolve=False)
    assert transport.check("https://[::ffff:10.1.2.3]/", resolve=False)
    assert transport.check("https://billing.corp.internal/", resolve=False)
    assert transport.check("https://billing/", resolve=False)
    for url in ("https://localhost/", "https://127.0.0.1/", "https://169.254.169.254/"):
        with pytest.raises(AddressRefusedError):
            transport.check(url, resolve=False)


def test_everything_in_ipv6_exempts_no_ipv4(make: Make) -> None:
    with pytest.raises(AddressRefusedError):
        make(allow_http=False, allowed_networks=[ipaddress.ip_network("::/0")]).check(
            "https://[::ffff:10.0.0.1]/"
        )


def test_localhost_is_reached_by_name(transport: Transport) -> None:
    with Receiver(ok()) as receiver:
        reply = transport.send(outbound(receiver.url(host="localhost")))

        assert reply.failure is None
        assert reply.timings.dns is not None
        assert receiver.requests[0].headers["host"] == f"localhost:{receiver.port}"


# Names


def test_a_name_that_changes_between_check_and_connect_gains_nothing(make: Make) -> None:
    """DNS rebinding: public while it is checked, this host when it is connected to."""

    def rebind(name: str, times: int) -> list[str]:
        return ["93.184.216.34"] if times == 1 else ["127.0.0.1"]

    with NameServer(rebind) as server, Receiver(ok()) as receiver:
        transport = make(allowed_networks=(), resolver=server.getaddrinfo)
        url = receiver.url(host="rebind.example.com")
        assert transport.check(url) == url

        reply = transport.send(outbound(url))

        assert (reply.failure, reply.detail) == (Failure.BLOCKED_ADDRESS, REFUSED)
        assert reply.log == "rebind.example.com is 127.0.0.1: 127.0.0.0/8 loopback (RFC 1122)"
        assert receiver.connections == 0
        # Once per connection: what is checked is what is connected to, there is no second question in between.
        assert server.queries == {"rebind.example.com": 2}


def test_the_address_asked_for_once_is_the_one_connected_to(make: Make) -> None:
    def turn_away(name: str, times: int) -> list[str]:
        return ["127.0.0.1"] if times == 1 else ["10.0.0.1"]

    with NameServer(turn_away) as server, Receiver(ok()) as receiver:
        transport = make(resolver=server.getaddrinfo)
        replies = [transport.send(outbound(receiver.url(host="hooks.example.com"))) for _ in range(5)]

        assert [reply.failure for reply in replies] == [None] * 5
        assert {reply.address for reply in replies} == {"127.0.0.1"}
        assert server.queries == {"hooks.example.com": 1}


def test_the_other_end_is_judged_too(make: Make) -> None:
    """0.0.0.0 is exempt here, but a system that is asked for it connects to 127.0.0.1, which is not."""
    transport = make(allowed_networks=[ipaddress.ip_network("0.0.0.0/8")])
    with Receiver(ok()) as receiver:
        reply = transport.send(outbound(receiver.url(host="0.0.0.0")))

        assert reply.failure is Failure.BLOCKED_ADDRESS
        assert reply.log.startswith("0.0.0.0 is 127.0.0.1:")
        assert receiver.requests == []


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["93.184.216.34", "127.0.0.1"],
        ["10.0.0.1", "93.184.216.34"],
        ["93.184.216.34", "::1"],
        ["::ffff:127.0.0.1"],
        ["64:ff9b::7f00:1"],
        ["169.254.169.254"],
    ],
)
def test_one_bad_address_of_a_name_refuses_it(make: Make, addresses: list[str]) -> None:
    with NameServer(lambda name, times: addresses) as server:
        transport = make(allowed_networks=(), resolver=server.getaddrinfo)

        with pytest.raises(AddressRefusedError) as caught:
            transport.check("https://mixed.example.com/")
        reply = transport.send(outbound("https://mixed.example.com/"))

    assert str(caught.value) == REFUSED
    assert reply.failure is Failure.BLOCKED_ADDRESS
    assert reply.timings.connect is None


def test_a_name_that_cannot_be_looked_up_now_may_be_saved_but_fails_as_dns(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    def resolve(*_: object, **__: object) -> t.NoReturn:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    caplog.set_level(logging.INFO, logger="flask_webhooks.transport")
    transport = make(resolver=resolve)

    assert transport.check("https://away.example.com/") == "https://away.example.com/"
    reply = transport.send(outbound("https://away.example.com/"))

    assert [record.message for record in caplog.records] == ["address.unresolved"]
    assert (reply.failure, reply.detail) == (Failure.DNS, "The host name could not be resolved.")
    assert "gaierror" in reply.log


def test_a_name_that_does_not_exist_is_refused_like_one_that_leads_inside(make: Make) -> None:
    inside = {"db.example.com": ["10.0.0.7"]}
    with NameServer(lambda name, times: inside.get(name, [])) as server:
        transport = make(resolver=server.getaddrinfo)
        said = []
        for host in ("db.example.com", "nothing.example.com"):
            with pytest.raises(AddressRefusedError) as caught:
                transport.check(f"https://{host}/")
            said.append((str(caught.value), caught.value.fields))

    assert said == [(REFUSED, {"url": [REFUSED]})] * 2


def test_a_resolver_that_knows_no_name_of_the_internet_refuses_none(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a machine without a network nothing is known of any name: neither of those inside."""
    known = {"db.example.com": "10.0.0.7"}

    def resolve(host: str, *_: object, **__: object) -> t.Any:
        if host in known:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (known[host], 443))]
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    transport = make(allowed_networks=(), resolver=None)
    urls = ["https://db.example.com/", "https://nothing.example.com/"]

    assert [transport.check(url) for url in urls] == urls
    assert transport.send(outbound(urls[0])).failure is Failure.BLOCKED_ADDRESS
    known["a.root-servers.net"] = "198.41.0.4"
    for url in urls:
        with pytest.raises(AddressRefusedError):
            transport.check(url)


@pytest.mark.parametrize("answer", [[], [(2, 1, 6, "", ("not an address", 80))], None, [()]])
def test_whatever_a_resolver_does_is_a_dns_failure(make: Make, answer: t.Any) -> None:
    transport = make(resolver=lambda *args, **kwargs: answer)

    assert transport.send(outbound("https://example.com/")).failure is Failure.DNS


def test_the_next_address_is_tried(make: Make) -> None:
    with NameServer(lambda name, times: ["127.0.0.2", "127.0.0.1"]) as server, Receiver(ok()) as receiver:
        reply = make(resolver=server.getaddrinfo).send(outbound(receiver.url(host="two.example.com")))

    assert (reply.failure, reply.address) == (None, "127.0.0.1")


def test_a_hanging_resolver_holds_no_caller_and_few_threads(make: Make) -> None:
    release = threading.Event()

    def hang(*args: t.Any, **kwargs: t.Any) -> t.Any:
        release.wait(30)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    transport = make(timeout=(0.2, 5.0), resolver=hang)
    try:
        began = time.monotonic()
        replies = [transport.send(outbound("https://dead.example.com/")) for _ in range(5)]
        took = time.monotonic() - began
        waiting = [thread for thread in threading.enumerate() if thread.name == "webhooks-lookup"]
    finally:
        release.set()

    assert {reply.failure for reply in replies} == {Failure.DNS}
    assert 0.9 <= took < 15  # five times the time to connect, and not five times the whole
    assert len(waiting) == 1
    for thread in waiting:
        thread.join(10)


def test_hanging_lookups_are_bounded() -> None:
    release = threading.Event()

    def hang(*args: t.Any, **kwargs: t.Any) -> t.Any:
        release.wait(30)
        return []

    names = Names(hang)
    try:
        for number in range(MOST_LOOKUPS):
            with pytest.raises(LookupFailed, match="no answer"):
                names.lookup(f"{number}.example.com", 443, 0.001)
        with pytest.raises(LookupFailed, match="already waiting"):
            names.lookup("one.more.example.com", 443, 0.01)
        waiting = [thread for thread in threading.enumerate() if thread.name == "webhooks-lookup"]
    finally:
        release.set()
    for thread in waiting:
        thread.join(10)

    assert len(waiting) == MOST_LOOKUPS
    assert not [thread for thread in waiting if thread.is_alive()]
    with pytest.raises(LookupFailed, match="no addresses"):
        names.lookup("one.more.example.com", 443, 5)


# Proxies


def test_proxies_of_the_environment_are_ignored(
    transport: Transport, monkeypatch: pytest.MonkeyPatch, tmp_path: t.Any
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password secret")
    monkeypatch.setenv("NETRC", str(netrc))
    with Receiver(ok()) as proxy, Receiver(ok()) as receiver:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url())
        reply = transport.send(outbound(receiver.url()))

        assert reply.failure is None
        assert proxy.connections == 0
        assert "authorization" not in receiver.requests[0].headers


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("https://user:password@example.com/", "user name or password"),
        ("http://example.com/", "plain http is switched off"),
        ("ftp://example.com/", "must begin with https://"),
        ("https://example.com/#a", "fragment"),
        ("https://example.com/a b", "spaces"),
        ("https://2130706433/", "four decimal numbers"),
        ("https://exa mple.com/", "spaces"),
        ("https://exam!ple.com/", "check its spelling"),
        (f"https://example.com/{'a' * 2048}", "2048 characters"),
    ],
)
def test_the_owner_sees_how_to_write_it(guarded: Transport, url: str, says: str) -> None:
    with pytest.raises(SubscriptionError, match=says) as caught:
        guarded.check(url)

    assert not isinstance(caught.value, AddressRefusedError)
    assert caught.value.fields == {"url": [str(caught.value)]}
