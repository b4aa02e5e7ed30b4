"""Connections: kept, closed by the receiver, shared by threads, forked, under TLS and through a proxy."""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
import time
import typing as t
from collections.abc import Iterator

import pytest

from flask_webhooks.outcome import Failure
from flask_webhooks.transport import Reply, Transport
from tests.receivers import (
    Authority,
    Behaviour,
    Receiver,
    Talk,
    close_early,
    close_when_idle,
    deaf,
    forget,
    hang,
    ok,
    raw,
    response,
)
from tests.stage import wait_until
from tests.transport.conftest import Make, outbound


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


# Keeping


def test_a_connection_is_kept(transport: Transport) -> None:
    with Receiver(ok()) as receiver:
        first, second = (transport.send(outbound(receiver.url())) for _ in range(2))

        assert receiver.connections == 1
    assert first.timings.connect is not None
    assert (second.timings.dns, second.timings.connect, second.timings.tls) == (None, None, None)
    assert first.address == second.address == "127.0.0.1"


def test_a_kept_connection_is_used_by_other_threads(transport: Transport) -> None:
    with Receiver(ok()) as receiver:
        for _ in range(3):
            thread = threading.Thread(target=transport.send, args=(outbound(receiver.url()),))
            thread.start()
            thread.join(10)

        assert (receiver.connections, len(receiver.requests)) == (1, 3)


def test_32_threads_get_their_own_answers(make: Make) -> None:
    transport = make(pool_size=96)

    def echo(talk: Talk) -> None:
        while True:
            talk.send(response(200, body=talk.read_request().target.encode()))

    wrong: list[Reply] = []

    def work(number: int, receivers: list[Receiver]) -> None:
        for turn in range(50):
            target = f"/{number}/{turn}"
            reply = transport.send(outbound(receivers[turn % 3].url(target)))
            if reply.failure is not None or reply.body != target.encode():
                wrong.append(reply)

    with Receiver(echo) as one, Receiver(echo) as two, Receiver(echo) as three:
        receivers = [one, two, three]
        threads = [threading.Thread(target=work, args=(number, receivers)) for number in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)

        assert not wrong
        assert sum(len(receiver.requests) for receiver in receivers) == 32 * 50
        # At most one connection per thread was in use at a time, and none had to be opened twice.
        assert max(receiver.connections for receiver in receivers) <= 32


def test_idle_connections_are_bounded_over_all_destinations(make: Make) -> None:
    transport = make(pool_size=2)
    with Receiver(ok()) as one, Receiver(ok()) as two, Receiver(ok()) as three:
        before = open_files()
        for receiver in (one, two, three):
            transport.send(outbound(receiver.url()))
        one.wait_for_end()  # the longest idle one made room
        # Two connections of ours with a lifeline each; the receivers' ends are in this process too.
        assert open_files() - before == 2 * 3

        transport.send(outbound(three.url()))
        assert (one.connections, two.connections, three.connections) == (1, 1, 1)


def test_no_descriptor_is_left_behind(make: Make, authority: Authority) -> None:
    before = open_files()
    transport = make(timeout=(0.2, 0.3), verify=authority.path)
    behaviours: list[Behaviour] = [
        ok(),
        hang,
        close_early,
        raw(b"nonsense"),
        raw(b"HTTP/1.1 200 OK\r\n\r\nhello"),
    ]
    for behaviour in behaviours:
        for tls in (None, authority.context("127.0.0.1"), authority.context("other.example.com")):
            with Receiver(behaviour, tls=tls) as receiver:
                transport.send(outbound(receiver.url()))
    transport.send(outbound("http://127.0.0.1:1025/"))
    transport.close()

    wait_until(lambda: open_files() == before)


# Found closed


def test_a_kept_connection_found_closed_is_tried_once_more_at_once(transport: Transport) -> None:
    with Receiver(close_when_idle()) as receiver:
        assert transport.send(outbound(receiver.url())).failure is None
        reply = transport.send(outbound(receiver.url()))

        assert (reply.failure, reply.status) == (None, 200)
        assert reply.timings.connect is not None
        assert receiver.connections == 2
        assert len(receiver.requests) == 2


def test_once_more_means_once(transport: Transport) -> None:
    def good_once(talk: Talk) -> None:
        talk.read_request()
        if talk.number == 1:
            talk.send(response())
            talk.read_request()

    with Receiver(good_once) as receiver:
        assert transport.send(outbound(receiver.url())).failure is None
        reply = transport.send(outbound(receiver.url()))

        assert reply.failure is Failure.CONNECT
        assert receiver.connections == 2
        assert len(receiver.requests) == 3  # it was accepted, refused by silence twice, and never asked again


def test_not_once_more_when_anything_was_read(transport: Transport) -> None:
    def break_off(talk: Talk) -> None:
        talk.read_request()
        talk.send(response())
        talk.read_request()
        talk.send(b"H")

    with Receiver(break_off) as receiver:
        assert transport.send(outbound(receiver.url())).failure is None
        reply = transport.send(outbound(receiver.url()))

        assert reply.failure is Failure.PROTOCOL
        assert receiver.connections == 1


def test_not_once_more_on_a_new_connection(transport: Transport) -> None:
    with Receiver(close_early) as receiver:
        assert transport.send(outbound(receiver.url())).failure is Failure.CONNECT

        assert receiver.connections == 1


def test_all_kept_connections_of_a_restarted_receiver_are_survived(transport: Transport) -> None:
    barrier = threading.Barrier(8)

    def together(talk: Talk) -> None:
        while True:
            talk.read_request()
            if talk.number <= 8:
                barrier.wait(10)
                talk.send(response())
                return  # closes, without having said so
            talk.send(response())

    replies: list[Reply] = []

    def send(url: str) -> None:
        replies.append(transport.send(outbound(url)))

    with Receiver(together) as receiver:
        for _ in range(2):
            threads = [threading.Thread(target=send, args=(receiver.url(),)) for _ in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
            receiver.wait_for(8)

    assert [reply.failure for reply in replies] == [None] * 16


def test_what_an_idle_receiver_says_unasked_answers_nothing(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = threading.Event()

    def time_out(talk: Talk) -> None:
        talk.read_request()
        talk.send(response(200, body=b"answer"))
        if talk.number == 1:
            talk.pause(0.05)
            talk.send(response(408, body=b"you were too slow"))
            said.set()

    with Receiver(time_out) as receiver:
        assert transport.send(outbound(receiver.url())).body == b"answer"
        assert said.wait(10)
        receiver.wait_for_end()
        reply = transport.send(outbound(receiver.url()))

        assert (reply.status, reply.body) == (200, b"answer")
        assert receiver.connections == 2


# Growing old


class Watch:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watch() -> Watch:
    return Watch()


def test_a_receiver_that_moves_is_followed(make: Make, watch: Watch) -> None:
    """Its old server stays up, and the connection to it is never idle."""
    with Receiver(ok(b"old")) as old, Receiver(ok(b"new"), address="127.0.0.2", port=old.port) as new:
        where = [("127.0.0.1", old.port)]

        def resolve(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", where[0])]

        transport = make(clock=watch, resolver=resolve)

        def send() -> bytes:
            watch.now += 1.0
            return transport.send(outbound(old.url(host="hooks.example.com"))).body

        assert [send() for _ in range(10)] == [b"old"] * 10
        where[0] = ("127.0.0.2", new.port)
        answers = [send() for _ in range(60)]

        assert answers == [b"old"] * answers.count(b"old") + [b"new"] * answers.count(b"new")
        assert watch.now - 1000.0 - answers.count(b"new") <= 61.0
        assert (old.connections, new.connections) == (1, 1)


def test_so_is_one_under_tls_and_of_another_lifetime(make: Make, watch: Watch, authority: Authority) -> None:
    transport = make(clock=watch, verify=authority.path, lifetime=5.0)
    with Receiver(ok(), tls=authority.context("127.0.0.1")) as receiver:
        for _ in range(11):
            watch.now += 1.0
            assert transport.send(outbound(receiver.url())).failure is None

        assert receiver.connections == 3


def test_a_connection_that_has_been_idle_is_not_used_again(make: Make, watch: Watch) -> None:
    """What lies between may have forgotten it: after a minute, or four, a request on it goes nowhere."""
    transport = make(clock=watch)
    with Receiver(ok()) as receiver:
        for pause, connections in ((0.0, 1), (29.0, 1), (31.0, 2), (240.0, 3)):
            watch.now += pause
            assert transport.send(outbound(receiver.url())).failure is None
            assert receiver.connections == connections


def test_connections_of_receivers_that_are_not_called_any_more_are_closed(make: Make, watch: Watch) -> None:
    transport = make(clock=watch, idle=10.0)
    with Receiver(ok()) as quiet, Receiver(ok()) as busy:
        transport.send(outbound(quiet.url()))
        watch.now += 11.0
        transport.send(outbound(busy.url()))

        quiet.wait_for_end()


# Forgotten


def _forgetful(*, tells: threading.Event, acknowledges: bool = False) -> Behaviour:
    """Answer the first request of the first connection, and ignore all later bytes on it."""

    def behave(talk: Talk) -> None:
        talk.read_request()
        talk.send(response())
        if talk.number == 1:
            if acknowledges:
                talk.read_request()
            forget(talk.sock)
            tells.set()
            talk.pause(60)
        ok()(talk)

    return behave


@pytest.mark.parametrize("is_tls", [False, True], ids=["plain", "tls"])
def test_an_unacknowledged_request_is_sent_once_more_within_its_attempt(
    make: Make, authority: Authority, is_tls: bool
) -> None:
    transport, forgotten = make(timeout=(1.0, 4.0), verify=authority.path), threading.Event()
    tls = authority.context("127.0.0.1") if is_tls else None
    with Receiver(_forgetful(tells=forgotten), tls=tls) as receiver:
        assert transport.send(outbound(receiver.url())).failure is None
        assert forgotten.wait(10)
        reply = transport.send(outbound(receiver.url()))

        assert (reply.failure, reply.status) == (None, 200)
        assert 1.0 < reply.timings.total < 4.0
        assert (receiver.connections, len(receiver.requests)) == (2, 2)


def test_once_anew_means_once(make: Make) -> None:
    """The new connection is lost too: its time is that of the attempt."""
    transport, forgotten = make(timeout=(1.0, 2.0)), threading.Event()

    def behave(talk: Talk) -> None:
        if talk.number == 1:
            talk.read_request()
            talk.send(response())
        forget(talk.sock)
        forgotten.set()
        talk.pause(60)

    with Receiver(behave) as receiver:
        assert transport.send(outbound(receiver.url())).failure is None
        assert forgotten.wait(10)
        reply = transport.send(outbound(receiver.url()))

        assert reply.failure is Failure.TIMEOUT
        assert 1.9 < reply.timings.total < 5.0
        assert receiver.connections == 2


def test_an_answer_that_is_slow_is_waited_for(make: Make) -> None:
    transport = make(timeout=(1.0, 3.0))  # so that a second without an acknowledgement would be enough

    def behave(talk: Talk) -> None:
        for pause in (0.0, 1.4):
            talk.read_request()
            talk.pause(pause)
            talk.send(response())

    with Receiver(behave) as receiver:
        replies = [transport.send(outbound(receiver.url())) for _ in range(2)]

        assert [reply.status for reply in replies] == [200, 200]
        assert receiver.connections == 1


class Options:
    """The options of the connections that a transport opens, and those set later."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.socks: list[socket.socket] = []
        connect = socket.socket.connect

        def note(sock: socket.socket, address: t.Any) -> None:
            connect(sock, address)
            self.socks.append(sock.dup())

        monkeypatch.setattr(socket.socket, "connect", note)

    def __getitem__(self, name: str) -> list[int]:
        return [sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for sock in self.socks]

    def close(self) -> None:
        for sock in self.socks:
            sock.close()


@pytest.fixture
def options(monkeypatch: pytest.MonkeyPatch) -> Iterator[Options]:
    found = Options(monkeypatch)
    yield found
    found.close()


def test_a_request_that_was_acknowledged_is_not_sent_anew(make: Make, options: Options) -> None:
    """Its receiver has it, and may be at work: only then the connection is lost, which the kernel finds out."""
    transport, forgotten = make(timeout=(1.0, 6.0)), threading.Event()
    with Receiver(_forgetful(tells=forgotten, acknowledges=True)) as receiver:
        assert transport.send(outbound(receiver.url())).failure is None
        for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL"):  # a second, so that no test waits for ten
            options.socks[0].setsockopt(socket.IPPROTO_TCP, getattr(socket, name), 1)
        reply = transport.send(outbound(receiver.url()))

        assert (reply.failure, reply.timings.total < 5.5) == (Failure.TIMEOUT, True)
        assert "The connection was lost" in reply.detail
        assert (receiver.connections, len(receiver.requests)) == (1, 2)


def test_the_kernel_watches_kept_connections(make: Make, options: Options) -> None:
    transport = make(timeout=(5.0, 15.0))
    with Receiver(ok()) as receiver:
        transport.send(outbound(receiver.url()))
        assert options["TCP_USER_TIMEOUT"] == [0]
        assert [sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) for sock in options.socks] == [1]
        assert options["TCP_KEEPIDLE"][0] < 30
        transport.send(outbound(receiver.url()))

        assert options["TCP_USER_TIMEOUT"] == [4000]


def test_a_platform_without_these_options_does_without(
    transport: Transport, options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("TCP_USER_TIMEOUT", "TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"):
        monkeypatch.delattr(socket, name)
    with Receiver(ok()) as receiver:
        assert [transport.send(outbound(receiver.url())).failure for _ in range(2)] == [None, None]
        assert receiver.connections == 1


# Connecting


def test_a_refused_connection_is_a_connect_failure(transport: Transport) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # bound, not listening
        reply = transport.send(outbound(f"http://127.0.0.1:{sock.getsockname()[1]}/"))

    assert (reply.failure, reply.detail) == (Failure.CONNECT, "The connection was refused.")
    assert "ConnectionRefusedError" in reply.log


def test_a_connection_that_is_not_accepted_is_a_timeout(make: Make) -> None:
    transport = make(timeout=(0.3, 30.0))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        filling = [socket.socket() for _ in range(8)]
        for sock in filling:
            sock.setblocking(False)
            sock.connect_ex(address)
        select.select([], filling, [], 1.0)  # at least one has been taken into the queue
        reply = transport.send(outbound(f"http://127.0.0.1:{address[1]}/"))
        for sock in filling:
            sock.close()

    assert reply.failure is Failure.TIMEOUT
    assert 0.3 <= reply.timings.total < 20


def test_ipv6_is_reached_with_its_brackets_in_the_host(transport: Transport) -> None:
    with Receiver(ok(), address="::1") as receiver:
        reply = transport.send(outbound(receiver.url(host="[::1]")))

        assert (reply.failure, reply.address) == (None, "::1")
        assert receiver.requests[0].headers["host"] == f"[::1]:{receiver.port}"


@pytest.mark.parametrize("turn", [1, -1], ids=["no_way_last", "no_way_first"])
def test_that_there_is_no_way_to_one_address_hides_nothing_of_another(
    make: Make, monkeypatch: pytest.MonkeyPatch, turn: int
) -> None:
    """As on a machine without IPv6, where a receiver of both kinds is down."""
    connect = socket.socket.connect

    def without_ipv6(sock: socket.socket, address: t.Any) -> None:
        if sock.family == socket.AF_INET6:
            raise OSError(errno.ENETUNREACH, "Network is unreachable")
        connect(sock, address)

    def resolver(host: str, port: int, **_: object) -> t.Any:
        both = [(2, 1, 6, "", ("127.0.0.1", port)), (10, 1, 6, "", ("::1", port, 0, 0))]
        return both[::turn]

    monkeypatch.setattr(socket.socket, "connect", without_ipv6)
    transport = make(resolver=resolver)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        for host in ("one.example", "two.example"):
            reply = transport.send(outbound(f"http://{host}:{sock.getsockname()[1]}/"))

            assert (reply.detail, reply.is_ours) == ("The connection was refused.", False)


def test_a_machine_without_ipv6_is_no_outage_for_a_receiver_that_has_nothing_else(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_address(sock: socket.socket, address: t.Any) -> None:
        if sock.type == socket.SOCK_STREAM:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")  # with disable_ipv6=1

    monkeypatch.setattr(socket.socket, "connect", no_address)
    reply = make().send(outbound("http://[::1]:8080/"))

    assert (reply.failure, reply.is_ours) == (Failure.CONNECT, False)


# TLS


def test_tls_is_verified_and_timed(make: Make, authority: Authority) -> None:
    transport = make(verify=authority.path, allow_http=False)
    with Receiver(ok(), tls=authority.context("localhost")) as receiver:
        first, second = (transport.send(outbound(receiver.url(host="localhost"))) for _ in range(2))

        assert (first.failure, second.failure) == (None, None)
        assert receiver.connections == 1
    timings = first.timings
    assert timings.dns is not None
    assert timings.connect is not None
    assert timings.tls is not None
    assert timings.first_byte is not None
    assert timings.dns + timings.connect + timings.tls < timings.first_byte < timings.total
    assert second.timings.tls is None


@pytest.mark.parametrize(
    ("names", "expired", "trusted", "expected"),
    [
        (("other.example.com",), False, True, "not valid for '127.0.0.1'"),
        (("localhost",), False, True, "not valid for '127.0.0.1'"),
        (("127.0.0.1",), True, True, "certificate has expired"),
        (("127.0.0.1",), False, False, "unable to get local issuer"),
    ],
    ids=["another name", "a name instead of the address", "expired", "unknown authority"],
)
def test_a_certificate_that_does_not_fit_is_a_tls_failure(
    make: Make, authority: Authority, names: tuple[str, ...], expired: bool, trusted: bool, expected: str
) -> None:
    transport = make(verify=authority.path if trusted else True)
    with Receiver(ok(), tls=authority.context(*names, expired=expired)) as receiver:
        reply = transport.send(outbound(receiver.url()))

        assert (reply.failure, reply.is_ours) == (Failure.TLS, False)
        assert expected in reply.detail
        assert receiver.requests == []


def test_verification_can_be_switched_off(make: Make, authority: Authority) -> None:
    transport = make(verify=False)
    with Receiver(ok(), tls=authority.context("other.example.com", expired=True)) as receiver:
        assert transport.send(outbound(receiver.url())).failure is None


def _plain(talk: Talk) -> None:
    talk.sock.recv(4096)
    talk.send(response(400, body=b"You speak HTTPS to an HTTP port."))


@pytest.mark.parametrize("behaviour", [_plain, close_early], ids=["HTTP", "closed"])
def test_what_does_not_speak_tls_is_a_tls_failure(transport: Transport, behaviour: Behaviour) -> None:
    with Receiver(behaviour) as receiver:
        reply = transport.send(outbound(f"https://127.0.0.1:{receiver.port}/"))

    assert reply.failure is Failure.TLS
    assert reply.address == "127.0.0.1"


def test_http_to_a_tls_port_is_no_success(transport: Transport, authority: Authority) -> None:
    with Receiver(ok(), tls=authority.context("127.0.0.1")) as receiver:
        reply = transport.send(outbound(f"http://127.0.0.1:{receiver.port}/"))

    assert reply.failure in (Failure.PROTOCOL, Failure.CONNECT)


# A fork


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # there are other threads: that is the point
def test_a_forked_child_shares_no_connection(transport: Transport) -> None:
    with Receiver(ok()) as receiver:
        assert transport.send(outbound(receiver.url())).failure is None
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                reply = transport.send(outbound(receiver.url("/child")))
                os.write(writing, f"{reply.status} {reply.timings.connect is not None}".encode())
            finally:
                os._exit(0)
        os.close(writing)
        ready, _, _ = select.select([reading], [], [], 10)
        said = os.read(reading, 100) if ready else b""
        os.close(reading)
        os.waitpid(child, 0)

        assert said == b"200 True"
        assert transport.send(outbound(receiver.url())).timings.connect is None  # ours is as good as before
        assert receiver.connections == 2


# Proxies


def _egress(authority_port: list[str]) -> Behaviour:
    """Return an HTTP proxy that forwards what is absolute and tunnels what asks for it."""

    def behave(talk: Talk) -> None:
        while True:
            request = talk.read_request()
            if request.method != "CONNECT":
                talk.send(response(200, body=b"forwarded"))
                continue
            host, _, port = request.target.rpartition(":")
            authority_port.append(host)
            with socket.create_connection(("127.0.0.1", int(port))) as upstream:
                talk.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
                _pump(talk, upstream)
            return

    return behave


def _pump(talk: Talk, upstream: socket.socket) -> None:
    while not talk.receiver.stopping.is_set():
        ready, _, _ = select.select([talk.sock, upstream], [], [], 0.1)
        for source in ready:
            data = source.recv(65536)
            if not data:
                return
            (upstream if source is talk.sock else talk.sock).sendall(data)


def test_an_egress_proxy_forwards_http(make: Make) -> None:
    with Receiver(_egress([])) as proxy:
        transport = make(allowed_networks=(), proxy=f"http://name:word@127.0.0.1:{proxy.port}")
        reply = transport.send(outbound("http://hooks.example.com/a?b=1"))
        again = transport.send(outbound("http://other.example.com/"))

        assert (reply.failure, reply.body, reply.address) == (None, b"forwarded", "127.0.0.1")
        assert again.timings.connect is None
        request = proxy.requests[0]
        assert request.target == "http://hooks.example.com/a?b=1"
        assert request.headers["host"] == "hooks.example.com"
        assert request.headers["proxy-authorization"].startswith("Basic ")


def test_an_egress_proxy_tunnels_https_and_the_name_is_still_verified(
    make: Make, authority: Authority
) -> None:
    asked: list[str] = []
    with (
        Receiver(_egress(asked)) as proxy,
        Receiver(ok(b"through"), tls=authority.context("hooks.example.com")) as receiver,
    ):
        transport = make(
            allowed_networks=(), proxy=f"http://name:word@127.0.0.1:{proxy.port}", verify=authority.path
        )
        good, kept = (transport.send(outbound(receiver.url(host="hooks.example.com"))) for _ in range(2))
        bad = transport.send(outbound(receiver.url(host="other.example.com")))

        assert (good.failure, good.body) == (None, b"through")
        assert kept.timings.tls is None
        assert bad.failure is Failure.TLS
        assert asked == ["hooks.example.com", "other.example.com"]
        assert "proxy-authorization" not in receiver.requests[0].headers


def test_a_proxy_does_not_lift_the_check_of_the_url(make: Make) -> None:
    with Receiver(ok()) as proxy:
        transport = make(allowed_networks=(), proxy=f"http://127.0.0.1:{proxy.port}")
        for url in ("http://10.0.0.1/", "http://localhost/", "http://metadata.google.internal/"):
            assert transport.send(outbound(url)).failure is Failure.BLOCKED_ADDRESS

        assert proxy.connections == 0


def test_a_proxy_that_refuses_is_a_connect_failure(make: Make) -> None:
    with Receiver(ok(b"", 403)) as proxy:
        transport = make(proxy=f"http://127.0.0.1:{proxy.port}")
        reply = transport.send(outbound("https://hooks.example.com/"))

    assert (reply.failure, reply.detail) == (Failure.CONNECT, "The connection could not be made.")
    assert "403" in reply.log


@pytest.mark.parametrize("behaviour", [hang, deaf], ids=["reads", "does not"])
def test_a_proxy_that_hangs_is_a_timeout(make: Make, behaviour: Behaviour) -> None:
    with Receiver(behaviour) as proxy:
        transport = make(timeout=(0.3, 0.5), proxy=f"http://127.0.0.1:{proxy.port}")
        began = time.monotonic()
        reply = transport.send(outbound("https://hooks.example.com/"))

    assert reply.failure is Failure.TIMEOUT
    assert time.monotonic() - began < 20


def test_what_comes_behind_an_answer_answers_nothing(transport: Transport) -> None:
    """A 204 with a body, in a segment of its own: as hand-made receivers send it."""
    said = threading.Event()

    def chatter(talk: Talk) -> None:
        talk.read_request()
        talk.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        talk.pause(0.02)
        talk.send(b"ok")
        said.set()
        talk.read_request()

    with Receiver(chatter) as receiver:
        for _ in range(3):
            assert transport.send(outbound(receiver.url())).status == 204
            assert said.wait(10)
            said.clear()

        assert receiver.connections == 3


@pytest.mark.parametrize("head", ["Content-Length: 2", "Transfer-Encoding: chunked"])
def test_a_204_that_has_a_body_ends_its_connection(transport: Transport, head: str) -> None:
    def odd(talk: Talk) -> None:
        talk.read_request()
        talk.send(f"HTTP/1.1 204 No Content\r\n{head}\r\n\r\n".encode())

    with Receiver(odd) as receiver:
        for _ in range(2):
            assert transport.send(outbound(receiver.url())).status == 204

        assert receiver.connections == 2


def test_a_coding_that_is_none(transport: Transport) -> None:
    def old(talk: Talk) -> None:
        while True:
            talk.read_request()
            talk.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 2\r\n\r\nok")

    with Receiver(old) as receiver:
        for _ in range(2):
            reply = transport.send(outbound(receiver.url()))
            assert (reply.status, reply.body) == (200, b"ok")

        assert receiver.connections == 1
