"""The total deadline on the wall clock, with receivers that never finish."""

from __future__ import annotations

import threading
import time
import typing as t

import pytest

from flask_webhooks.outcome import Failure
from flask_webhooks.transport import Reply, Transport
from flask_webhooks.transport.connections import current
from tests.receivers import (
    Authority,
    Behaviour,
    Receiver,
    Talk,
    deaf,
    drip_body,
    drip_handshake,
    drip_headers,
    hang,
    ok,
    response,
)
from tests.transport.conftest import Make, outbound

LIMIT, LONGER = 0.4, 8.0
"""Seconds; long enough for a dozen drips, short enough for the test run."""
MARGIN = 10.0
"""Seconds by which a busy machine may be late; what is tested here would go on for ever."""


def play(scene: t.Callable[[float], bool]) -> None:
    """Play a scene with a limit; with a longer one if the machine was too busy to begin within it."""
    assert scene(LIMIT) or scene(LONGER)


NEVER_ENDING = {
    "hang": hang,
    "drip headers": drip_headers(0.03),
    "drip body with a length": drip_body(0.03),
    "drip chunks": drip_body(0.03, framing="chunked"),
    "drip body until close": drip_body(0.03, framing="close"),
}


def assert_ended_in_time(
    reply: Reply, began: float, ended: float | None = None, *, limit: float = LIMIT
) -> None:
    took = (ended or time.monotonic()) - began
    assert reply.failure is Failure.TIMEOUT
    assert reply.status is None
    assert limit <= took < limit + MARGIN, took
    assert limit <= reply.timings.total <= took


@pytest.mark.parametrize("behaviour", NEVER_ENDING.values(), ids=NEVER_ENDING)
def test_an_answer_that_never_ends_is_a_timeout(make: Make, behaviour: Behaviour) -> None:
    transport = make(timeout=(LIMIT, LIMIT))
    with Receiver(behaviour) as receiver:
        began = time.monotonic()
        reply = transport.send(outbound(receiver.url()))

        assert_ended_in_time(reply, began)
        receiver.wait_for_end()


@pytest.mark.parametrize("behaviour", NEVER_ENDING.values(), ids=NEVER_ENDING)
def test_also_under_tls(make: Make, authority: Authority, behaviour: Behaviour) -> None:
    def scene(limit: float) -> bool:
        transport = make(timeout=(limit, limit), verify=authority.path)
        with Receiver(behaviour, tls=authority.context("127.0.0.1")) as receiver:
            began = time.monotonic()
            reply = transport.send(outbound(receiver.url()))

            assert_ended_in_time(reply, began, limit=limit)
            receiver.wait_for_end()
        return reply.timings.tls is not None

    play(scene)


@pytest.mark.parametrize("behaviour", NEVER_ENDING.values(), ids=NEVER_ENDING)
def test_also_on_a_kept_connection(make: Make, behaviour: Behaviour) -> None:
    def scene(limit: float) -> bool:
        transport = make(timeout=(limit, limit))
        with Receiver(_good_first(behaviour)) as receiver:
            if transport.send(outbound(receiver.url())).status != 200:
                return False
            began = time.monotonic()
            reply = transport.send(outbound(receiver.url()))

            assert_ended_in_time(reply, began, limit=limit)
            assert receiver.connections == 1
            assert reply.address == "127.0.0.1"
        return True

    play(scene)


def _good_first(behaviour: Behaviour) -> Behaviour:
    def behave(talk: Talk) -> None:
        talk.read_request()
        talk.send(response())
        behaviour(talk)

    return behave


def test_a_handshake_that_drips_is_a_timeout(make: Make) -> None:
    transport = make(timeout=(LIMIT, LIMIT))
    with Receiver(drip_handshake(0.03)) as receiver:
        began = time.monotonic()
        reply = transport.send(outbound(f"https://127.0.0.1:{receiver.port}/"))

        assert_ended_in_time(reply, began)


def test_a_handshake_in_silence_ends_with_the_time_to_connect(make: Make) -> None:
    transport = make(timeout=(0.2, 30.0))
    with Receiver(deaf) as receiver:
        reply = transport.send(outbound(f"https://127.0.0.1:{receiver.port}/"))

    assert reply.failure is Failure.TIMEOUT
    assert reply.timings.total < 20


def test_a_receiver_that_never_reads_a_large_body_is_a_timeout(make: Make) -> None:
    transport = make(timeout=(LIMIT, LIMIT))
    message = outbound("")
    with Receiver(deaf) as receiver:
        large = type(message)(receiver.url(), message.headers, bytes(64 * 1024 * 1024))
        began = time.monotonic()
        reply = transport.send(large)

        assert_ended_in_time(reply, began)


def test_one_watch_ends_many_at_their_own_time(make: Make) -> None:
    transport = make(timeout=(LIMIT, LIMIT))
    replies: list[tuple[Reply, float, float]] = []
    before = set(threading.enumerate())

    def send(url: str) -> None:
        began = time.monotonic()
        replies.append((transport.send(outbound(url)), began, time.monotonic()))

    with Receiver(drip_headers(0.03)) as receiver:
        threads = [threading.Thread(target=send, args=(receiver.url(),)) for _ in range(32)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        begun = set(threading.enumerate()) - before
        watches = [thread for thread in begun if thread.name == "webhooks-deadline"]

    assert len(replies) == 32
    for reply, began, ended in replies:
        assert_ended_in_time(reply, began, ended)
    assert len(watches) == 1


def test_the_connection_of_a_finished_attempt_outlives_its_deadline(make: Make) -> None:
    def scene(limit: float) -> bool:
        transport = make(timeout=(limit, limit))
        with Receiver(ok()) as receiver:
            ends = time.monotonic() + 3 * limit
            while time.monotonic() < ends:
                if transport.send(outbound(receiver.url())).failure is not None:
                    return False

            assert receiver.connections == 1
        return True

    play(scene)


def test_a_deadline_at_the_end_of_the_answer_harms_no_other_attempt(transport: Transport) -> None:
    with Receiver(ok()) as receiver:
        assert transport.send(outbound(receiver.url())).failure is None
        # The watch decides to end the attempt in the moment that its connection goes back to be used by others.
        current.get().expire()

        assert transport.send(outbound(receiver.url())).timings.connect is None
        assert receiver.connections == 1


def test_closing_ends_the_watch_and_refuses_more(transport: Transport) -> None:
    with Receiver(ok()) as receiver:
        transport.send(outbound(receiver.url()))
        transport.close()

        with pytest.raises(RuntimeError, match="closed"):
            transport.send(outbound(receiver.url()))
        receiver.wait_for_end()
