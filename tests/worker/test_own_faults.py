"""Faults of our own side never count against a receiver: deliveries wait, one event is logged, and they continue."""

from __future__ import annotations

import errno
import logging
import socket
import threading
import typing as t
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet
from flask import Flask

from flask_webhooks import queries
from flask_webhooks.models import Lane, Secret, Subscription
from flask_webhooks.outcome import Failure
from flask_webhooks.state import AppState, state_of
from flask_webhooks.transport import Transport
from flask_webhooks.transport.dialer import TunnelFailed
from flask_webhooks.transport.outage import Outage
from tests.receivers import Receiver, Talk, ok, response
from tests.stage import attempts, clock_ahead, deliveries, fill, lane_of, subscribe, wait_until
from tests.worker.answers import background, run

pytestmark = pytest.mark.long

MakeApp = t.Callable[..., Flask]
COUNT = 15
"""More than the breaker's minimum."""


def make_state(make_app: MakeApp, **settings: t.Any) -> AppState:
    return state_of(
        make_app(
            WEBHOOKS_RETRY="none", WEBHOOKS_TIMEOUT=(1, 3), WEBHOOKS_DISABLE_AFTER=(1, 0.001), **settings
        )
    )


def replace_transport(
    state: AppState, resolver: t.Any = socket.getaddrinfo, proxy: str | None = None
) -> None:
    """Give the app a transport with another name server or proxy: those cannot be switched off in a test."""
    settings = state.settings
    transport = Transport(
        timeout=settings.timeout,
        allow_http=True,
        allowed_networks=settings.allowed_networks,
        response_limit=settings.response_limit,
        pool_size=8,
        proxy=proxy,
        resolver=resolver,
    )
    state.transport.close()
    object.__setattr__(state, "transport", transport)


def nothing_counts(state: AppState, subscription: Subscription) -> None:
    """Nothing was given up, tried by the schedule, logged or held against the receiver; the lane waits for us."""
    assert {(row.state, row.attempts) for row in deliveries(state)} == {("pending", 0)}
    assert attempts(state) == []
    lane = lane_of(state, subscription)
    assert (lane.failures, lane.window_failed, lane.pauses, lane.paused_until) == (0, 0, 0, None)
    assert lane.waits_for == "sender"
    with state.engine.connect() as connection:
        assert queries.engine_status(connection, datetime.now(UTC)).waiting_for_us == 1


def try_for_a_while(state: AppState, subscription: Subscription) -> None:
    """Deliver until the lane waits for us; what is under way then is written when the run ends."""
    with background(state) as other:
        wait_until(
            lambda: (
                lane_of(state, subscription).waits_for
                if deliveries(state) and has_lane(state, subscription)
                else None
            )
        )
        other.stop.set()


def all_wait(state: AppState, url: str, count: int = COUNT) -> None:
    """Subscribe, have deliveries due, try for a while, and fail if anything counted."""
    subscription = subscribe(state, url)
    fill(state, [subscription], count)
    try_for_a_while(state, subscription)

    nothing_counts(state, subscription)


def has_lane(state: AppState, subscription: Subscription) -> bool:
    with state.engine.connect() as connection:
        mine = Lane.subscription_id == subscription.id
        return bool(connection.scalar(sa.select(sa.func.count()).select_from(Lane).where(mine)))


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


class Names:
    """A name server: names of `hosts` are on 127.0.0.1, of all others it says `otherwise`; nothing while it is away."""

    def __init__(self, *hosts: str, otherwise: int = socket.EAI_NONAME) -> None:
        self.hosts, self.otherwise, self.is_away, self.hangs = hosts, otherwise, False, threading.Event()
        self.broken: set[str] = set()

    def __call__(self, host: str, port: int, **_: t.Any) -> t.Any:
        if self.is_away or host in self.broken:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        if host in self.hosts:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
        raise socket.gaierror(self.otherwise, "Name or service not known")


def refusing(status: int) -> t.Callable[[Talk], None]:
    """A proxy that answers each CONNECT, and each request, with a status."""

    def behave(talk: Talk) -> None:
        talk.read_request()
        talk.send(response(status, {}, b""))

    return behave


class TestTheKeys:
    """A key that was lost, or given wrong, is ours to find."""

    @pytest.mark.parametrize("column", [Secret.sealed, Subscription.headers])
    def test_what_no_key_opens_waits_stops_no_other_and_goes_on(self, make_app, inbox, caplog, column):
        caplog.set_level(logging.ERROR)
        state = make_state(make_app)
        shut, sound = subscribe(state, inbox.url("/shut")), subscribe(state, inbox.url("/sound"))
        mine = Secret.subscription_id if column is Secret.sealed else Subscription.id
        mine = mine == shut.id
        table = sa.update(column.class_).where(mine)
        with state.engine.begin() as connection:
            before = connection.scalar(sa.select(column).where(mine))
            sealed = Fernet(Fernet.generate_key()).encrypt(b"whsec_x").decode()
            connection.execute(table.values({column.key: sealed}))
        fill(state, [shut, sound], 2 * COUNT)
        for _ in range(3):
            run(state, clock=clock_ahead(minutes=_))

        assert len(inbox.requests) == COUNT
        rows = [row for row in deliveries(state) if row.subscription_id == shut.id]
        assert {(row.state, row.attempts) for row in rows} == {("pending", 0)}
        assert lane_of(state, shut).waits_for == "sender"
        assert [row for row in attempts(state) if row.subscription_id == shut.id] == []
        assert [record.message for record in caplog.records] == ["secret.unreadable"]

        with state.engine.begin() as connection:
            connection.execute(table.values({column.key: before}))
        run(state, clock=clock_ahead(minutes=10))
        assert {row.state for row in deliveries(state)} == {"delivered"}


def test_an_outage_is_believed_again_where_there_was_no_doubt_for_long() -> None:
    """Otherwise only reaching a receiver would end the doubt, and without traffic none is reached."""
    times = iter((0.0, 3_500.0, 3_700.0, 80_000.0, 180_000.0, 290_000.0, 293_000.0, 294_000.0))
    now = [0.0]
    outage = Outage(socket.getaddrinfo, has_proxy=True, clock=lambda: now[0])
    gone, believed = TunnelFailed(Failure.CONNECT, "gone", ""), []
    for now[0] in times:
        believed.append(outage.is_ours("one.example.com", gone, is_connected=True))

    assert believed == [True, True, False, False, False, True, True, False]


class TestTheProxy:
    def test_one_that_is_down_lets_everybody_wait_and_is_said_once(self, make_app, inbox, caplog):
        caplog.set_level(logging.WARNING)
        state = make_state(make_app, WEBHOOKS_EGRESS_PROXY=f"http://127.0.0.1:{closed_port()}")
        subscription = subscribe(state, inbox.url())
        fill(state, [subscription], COUNT)
        try_for_a_while(state, subscription)
        try_for_a_while(state, subscription)

        nothing_counts(state, subscription)
        assert [record.message for record in caplog.records].count("sender.trouble") == 1

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_one_that_does_not_know_us_lets_everybody_wait(self, make_app, scheme):
        with Receiver(refusing(407)) as proxy:
            state = make_state(make_app, WEBHOOKS_EGRESS_PROXY=proxy.url("").rstrip("/"))
            all_wait(state, f"{scheme}://receiver.example.com/hook")

    def test_a_502_to_connect_is_ours_if_no_receiver_is_reached(self, make_app):
        with Receiver(refusing(502)) as proxy:
            state = make_state(make_app, WEBHOOKS_EGRESS_PROXY=proxy.url("").rstrip("/"))
            all_wait(state, "https://receiver.example.com/hook")

    def test_one_that_closes_instead_of_answering_is_ours_if_no_receiver_is_reached(self, make_app):
        def behave(talk: Talk) -> None:
            talk.read_request()

        with Receiver(behave) as proxy:
            state = make_state(make_app, WEBHOOKS_EGRESS_PROXY=proxy.url("").rstrip("/"))
            all_wait(state, "https://receiver.example.com/hook")

    @pytest.mark.parametrize("reads", [True, False], ids=["and reads", "and reads nothing"])
    def test_one_that_hangs_is_ours_if_no_receiver_is_reached(self, make_app, reads):
        """It takes the connection, or its kernel does, and says nothing to CONNECT."""

        def behave(talk: Talk) -> None:
            if reads:
                talk.read_request()
            talk.pause(30)

        with Receiver(behave) as proxy:
            state = make_state(make_app, WEBHOOKS_EGRESS_PROXY=proxy.url("").rstrip("/"))
            all_wait(state, "https://receiver.example.com/hook")

    def test_one_that_hangs_is_the_receivers_where_others_are_reached(self, make_app):
        def behave(talk: Talk) -> None:
            request = talk.read_request()
            if request.method == "CONNECT":
                talk.pause(30)
            talk.send(response(200, {}, b""))

        with Receiver(behave) as proxy:
            state = make_state(make_app, WEBHOOKS_EGRESS_PROXY=proxy.url("").rstrip("/"))
            fill(state, [subscribe(state, "http://good.example.com/")], 1)
            run(state)
            fill(state, [subscribe(state, "https://bad.example.com/hook")], 1)
            run(state)

        assert [(row.state, row.reason) for row in deliveries(state)] == [
            ("delivered", None),
            ("failed", "timeout"),
        ]

    def test_a_403_to_connect_is_about_the_receiver(self, make_app):
        with Receiver(refusing(403)) as proxy:
            state = make_state(make_app, WEBHOOKS_EGRESS_PROXY=proxy.url("").rstrip("/"))
            fill(state, [subscribe(state, "https://receiver.example.com/hook")], 1)
            run(state)

        assert [(row.state, row.reason) for row in deliveries(state)] == [("failed", "connect")]

    def test_a_502_to_connect_is_the_receivers_where_others_are_reached(self, make_app):
        def behave(talk: Talk) -> None:
            request = talk.read_request()
            talk.send(response(502 if request.method == "CONNECT" else 200, {}, b""))

        with Receiver(behave) as proxy:
            state = make_state(make_app, WEBHOOKS_EGRESS_PROXY=proxy.url("").rstrip("/"))
            fill(state, [subscribe(state, "http://good.example.com/")], 1)
            run(state)
            bad = subscribe(state, "https://bad.example.com/hook")
            fill(state, [bad], 1)
            run(state)

        assert [row.state for row in deliveries(state)] == ["delivered", "failed"]

    def test_they_go_on_by_themselves_when_it_is_back(self, make_app, inbox, caplog):
        caplog.set_level(logging.WARNING)
        port = closed_port()
        state = make_state(make_app, WEBHOOKS_EGRESS_PROXY=f"http://127.0.0.1:{port}")
        subscription = subscribe(state, "http://receiver.example.com/hook")
        fill(state, [subscription], COUNT)
        try_for_a_while(state, subscription)
        server = socket.create_server(("127.0.0.1", port))
        thread = threading.Thread(target=_serve, args=(server,), daemon=True)
        thread.start()
        run(state, clock=clock_ahead(seconds=60))

        assert {row.state for row in deliveries(state)} == {"delivered"}
        assert [record.message for record in caplog.records].count("sender.back") == 1
        server.close()


def _serve(server: socket.socket) -> None:
    while True:
        try:
            talk, _ = server.accept()
        except OSError:
            return
        threading.Thread(target=_answer, args=(talk,), daemon=True).start()


def _answer(talk: socket.socket) -> None:
    with talk:
        while data := talk.recv(65536):
            if b"\r\n\r\n" in data:
                talk.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")


class TestTheNameServer:
    def test_one_that_is_away_lets_everybody_wait(self, make_app):
        state, names = make_state(make_app), Names()
        names.is_away = True
        replace_transport(state, names)
        all_wait(state, "http://one.example.com:8080/")

    def test_one_that_says_nothing_lets_everybody_wait(self, make_app):
        state, release = make_state(make_app), threading.Event()

        def hang(*_: t.Any, **__: t.Any) -> t.NoReturn:
            release.wait(30)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

        replace_transport(state, hang)
        all_wait(state, "http://one.example.com:8080/", 2)
        release.set()

    @pytest.mark.parametrize("number", [errno.EIO, errno.ECONNREFUSED, errno.ENOENT])
    def test_a_system_that_cannot_even_ask_lets_everybody_wait(self, make_app, number):
        state = make_state(make_app)

        def fail(*_: t.Any, **__: t.Any) -> t.NoReturn:
            raise OSError(number, "of the system")  # as EAI_SYSTEM is raised

        replace_transport(state, fail)
        all_wait(state, "http://one.example.com:8080/")

    @pytest.mark.parametrize("how", ["no such name", "its zone is broken"])
    def test_a_name_that_does_not_resolve_where_the_server_answers_is_the_receivers(self, make_app, how):
        state, names = make_state(make_app), Names()
        if how == "its zone is broken":
            names.broken.add("one.example.com")
        replace_transport(state, names)
        fill(state, [subscribe(state, "http://one.example.com:8080/")], 1)
        run(state)

        assert [(row.state, row.reason) for row in deliveries(state)] == [("failed", "dns")]

    def test_a_cache_that_has_lost_its_server_is_found_out_by_the_others(self, make_app):
        state, names = make_state(make_app), Names()
        names.broken = {f"{name}.example.com" for name in "abc"}
        replace_transport(state, names)
        one, *others = (subscribe(state, f"http://{name}.example.com:8080/") for name in "abc")
        # How many of the first count, before another is tried, is a matter of threads: here it is one.
        fill(state, [one], 1)
        run(state)
        fill(state, others, 2 * COUNT)
        try_for_a_while(state, others[0])

        assert [row.state for row in deliveries(state)] == ["failed"] + 2 * COUNT * ["pending"]


class Way:
    """What `connect` of this process raises, for TCP and for UDP."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.errors: dict[int, int] = {}
        self.only: str | None = None
        real = socket.socket.connect

        def connect(sock: socket.socket, address: t.Any) -> None:
            number = self.errors.get(sock.type)
            if number is not None and (self.only is None or address[0] == self.only):
                raise OSError(number, "as the kernel says it")
            real(sock, address)

        monkeypatch.setattr(socket, "socket", type("Socket", (socket.socket,), {"connect": connect}))


class TestTheNetwork:
    @pytest.mark.parametrize("number", [errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EPERM])
    def test_where_there_is_no_way_at_all_everybody_waits(self, make_app, monkeypatch, number):
        state = make_state(make_app)
        subscription = subscribe(state, "http://127.0.0.1:8080/")
        fill(state, [subscription], COUNT)
        way = Way(monkeypatch)
        way.errors = {socket.SOCK_STREAM: number, socket.SOCK_DGRAM: number}
        try_for_a_while(state, subscription)

        nothing_counts(state, subscription)

    @pytest.mark.parametrize("number", [errno.ENETUNREACH, errno.EHOSTUNREACH])
    def test_one_that_cannot_be_reached_is_its_own_fault(self, make_app, monkeypatch, number, inbox):
        state = make_state(make_app)
        fill(state, [subscribe(state, inbox.url())], 1)
        run(state)
        way = Way(monkeypatch)
        way.errors, way.only = {socket.SOCK_STREAM: number}, "127.0.0.2"
        replace_transport(state)
        fill(state, [subscribe(state, "http://127.0.0.2:8080/")], 1)
        run(state)

        assert [(row.state, row.reason) for row in deliveries(state)] == [
            ("delivered", None),
            ("failed", "connect"),
        ]

    def test_a_receiver_that_refuses_is_its_own_fault(self, make_app):
        state = make_state(make_app)
        fill(state, [subscribe(state, f"http://127.0.0.1:{closed_port()}/")], 1)
        run(state)

        assert [(row.state, row.reason) for row in deliveries(state)] == [("failed", "connect")]


class TestResources:
    @pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EADDRNOTAVAIL])
    def test_what_this_machine_has_no_more_of_lets_everybody_wait(self, make_app, monkeypatch, number):
        state = make_state(make_app)
        subscription = subscribe(state, "http://127.0.0.1:8080/")
        fill(state, [subscription], COUNT)
        Way(monkeypatch).errors = {socket.SOCK_STREAM: number}
        try_for_a_while(state, subscription)

        nothing_counts(state, subscription)

    def test_memory_that_is_used_up_while_a_body_is_made(self, make_app):
        state = make_state(make_app)

        def greedy(*_: t.Any) -> t.NoReturn:
            raise MemoryError

        t.cast("dict[str, t.Any]", state.formats)["greedy"] = greedy
        with Receiver(ok()) as receiver:
            subscription = subscribe(state, receiver.url(), format="greedy")
            fill(state, [subscription], COUNT, format="greedy")
            try_for_a_while(state, subscription)

        assert {(row.state, row.attempts) for row in deliveries(state)} == {("pending", 0)}
