"""Answers of receivers: outcomes, bounds, and HTTP that arrives in pieces."""

from __future__ import annotations

import http.client
import io
import itertools
import tracemalloc
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_webhooks.outcome import Failure
from flask_webhooks.transport import Outbound, Transport
from flask_webhooks.transport.response import MOST_CHUNKS, Answer, AnswerTooLarge, Broken, Malformed
from tests.receivers import (
    Behaviour,
    Receiver,
    close_early,
    flood,
    gzip_bomb,
    many_headers,
    ok,
    raw,
    redirect,
    response,
)
from tests.transport.conftest import Make, outbound

LIMIT = 1024
"""Bytes of the body that the fixture's transport keeps."""


def test_a_request_arrives_as_it_was_given(transport: Transport) -> None:
    headers = {"Content-Type": "application/json", "X-Name": "Grüße"}
    with Receiver(ok(b'{"ok": true}', 201, {"X-Answer": "yes"})) as receiver:
        reply = transport.send(Outbound(receiver.url("/hook?a=1&b=%20"), headers, b"\x00\xff body"))

        (received,) = receiver.requests
        assert (received.method, received.target, received.body) == (
            "POST",
            "/hook?a=1&b=%20",
            b"\x00\xff body",
        )
        assert received.headers["host"] == f"127.0.0.1:{receiver.port}"
        assert received.headers["accept-encoding"] == "identity"
        assert received.headers["content-length"] == "7"
        assert received.headers["x-name"] == "Grüße"
    assert (reply.status, reply.failure, reply.body, reply.truncated) == (201, None, b'{"ok": true}', False)
    assert reply.headers["X-Answer"] == "yes"
    assert reply.address == "127.0.0.1"
    timings = reply.timings
    assert timings.dns is None  # the URL has an address
    assert timings.connect is not None
    assert timings.tls is None
    assert timings.first_byte is not None
    assert 0 < timings.connect < timings.first_byte < timings.total < 5


def test_no_name_of_a_library_is_sent_along(transport: Transport) -> None:
    with Receiver(ok()) as receiver:
        transport.send(Outbound(receiver.url(), {"User-Agent": "Flask-Webhooks/1"}, b""))
        transport.send(Outbound(receiver.url(), {}, b""))

        assert receiver.requests[0].headers["user-agent"] == "Flask-Webhooks/1"
        assert set(receiver.requests[1].headers) == {"host", "accept-encoding", "content-length"}


@pytest.mark.parametrize(
    "name",
    ["Host", "content-length", "Transfer-Encoding", "Connection", "Accept-Encoding", "Expect", "Cookie"],
)
def test_headers_of_the_connection_are_ours(transport: Transport, name: str) -> None:
    with Receiver(ok()) as receiver:
        reply = transport.send(outbound(receiver.url(), **{name: "evil"}))

        assert reply.status == 200
        assert not [line for line in receiver.requests[0].lines if "evil" in line]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-A", "a\r\nX-B: b"),
        ("X-A", "a\nb"),
        ("X-A", "a\rb"),
        ("X-A", "a\x00b"),
        ("X-A", "\N{SNOWMAN}"),
        ("X-A\r\nX-B", "b"),
        ("X A", "b"),
        ("X:A", "b"),
        ("", "b"),
        ("X-A\n", "b"),
        ("X-Ä", "b"),
    ],
)
def test_a_header_that_cannot_be_sent_sends_nothing(transport: Transport, name: str, value: str) -> None:
    with Receiver(ok()) as receiver:
        reply = transport.send(outbound(receiver.url(), **{name: value}))

        assert reply.failure is Failure.PROTOCOL
        assert "header" in reply.detail
        assert receiver.connections == 0


@pytest.mark.parametrize(
    ("status", "failure"),
    [
        (200, None),
        (202, None),
        (204, None),
        (299, None),
        (300, Failure.REDIRECT),
        (304, Failure.REDIRECT),
        (400, Failure.HTTP_4XX),
        (401, Failure.HTTP_4XX),
        (407, Failure.HTTP_4XX),
        (410, Failure.HTTP_4XX),
        (429, Failure.HTTP_4XX),
        (500, Failure.HTTP_5XX),
        (503, Failure.HTTP_5XX),
        (599, Failure.HTTP_5XX),
        (999, Failure.HTTP_5XX),
    ],
)
def test_the_status_decides(transport: Transport, status: int, failure: Failure | None) -> None:
    with Receiver(ok(b"", status, {"Retry-After": "7"})) as receiver:
        reply = transport.send(outbound(receiver.url()))

    assert (reply.status, reply.failure) == (status, failure)
    assert reply.headers["Retry-After"] == "7"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(transport: Transport, status: int) -> None:
    with Receiver(ok()) as target:
        location = f"http://user:secret@127.0.0.1:{target.port}/new?token=secret#x"
        with Receiver(redirect(status, location)) as receiver:
            reply = transport.send(outbound(receiver.url()))

        assert target.connections == 0
    assert (reply.status, reply.failure) == (status, Failure.REDIRECT)
    assert f"http://127.0.0.1:{target.port}/new; update the URL" in reply.detail
    assert "secret" not in reply.detail + reply.log


@pytest.mark.parametrize("location", ["", "http://[", "/relative?secret", "x" * 5000])
def test_odd_redirects_have_a_short_detail(transport: Transport, location: str) -> None:
    with Receiver(redirect(302, location)) as receiver:
        reply = transport.send(outbound(receiver.url()))

    assert reply.failure is Failure.REDIRECT
    assert len(reply.detail) < 300
    assert "secret" not in reply.detail


def test_cookies_are_not_kept(transport: Transport) -> None:
    with Receiver(ok(headers={"Set-Cookie": "a=b"})) as receiver:
        transport.send(outbound(receiver.url()))
        transport.send(outbound(receiver.url()))

        assert "cookie" not in receiver.requests[1].headers


@pytest.mark.parametrize("framing", ["length", "chunked", "close"])
@pytest.mark.parametrize(("status", "failure"), [(200, None), (500, Failure.HTTP_5XX)])
def test_a_flood_costs_nothing_and_the_status_counts(
    transport: Transport, framing: str, status: int, failure: Failure | None
) -> None:
    with Receiver(flood(framing=framing, status=status)) as receiver:
        tracemalloc.start()
        reply = transport.send(outbound(receiver.url()))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

        assert (reply.status, reply.failure) == (status, failure)
        assert reply.body == b"x" * LIMIT
        assert reply.truncated
        assert reply.timings.total < 10
        assert peak < 2 * 1024 * 1024
        receiver.wait_for_end()  # 200 MiB were not waited for: the connection is closed


def test_a_gzip_bomb_stays_packed(transport: Transport) -> None:
    with Receiver(gzip_bomb()) as receiver:
        tracemalloc.start()
        reply = transport.send(outbound(receiver.url()))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert (reply.status, reply.failure, reply.truncated) == (200, None, True)
    assert reply.body[:2] == b"\x1f\x8b"
    assert len(reply.body) == LIMIT
    assert peak < 2 * 1024 * 1024


@pytest.mark.parametrize(
    ("size", "truncated", "connections"),
    [
        (0, False, 1),
        (LIMIT - 1, False, 1),
        (LIMIT, False, 1),
        (LIMIT + 1, True, 1),
        (4 * LIMIT, True, 1),
        (5 * LIMIT, True, 2),
    ],
)
def test_a_little_too_much_is_drained_to_keep_the_connection(
    transport: Transport, size: int, truncated: bool, connections: int
) -> None:
    with Receiver(ok(b"x" * size)) as receiver:
        replies = [transport.send(outbound(receiver.url())) for _ in range(2)]

        assert receiver.connections == connections
    for reply in replies:
        assert (reply.failure, len(reply.body), reply.truncated) == (None, min(size, LIMIT), truncated)


def crumbs(count: int, status: int = 200) -> Behaviour:
    """Answer with a body of so many chunks of one byte, on a connection that is kept."""
    body = b"1\r\nx\r\n" * count + b"0\r\n\r\n"
    data = b"HTTP/1.1 %d Status\r\nTransfer-Encoding: chunked\r\n\r\n" % status + body

    def behave(talk: t.Any) -> None:
        while True:
            talk.read_request()
            talk.send(data)

    return behave


@pytest.mark.parametrize(
    ("count", "read", "connections"),
    [(1, 1, 1), (MOST_CHUNKS, MOST_CHUNKS, 1), (MOST_CHUNKS + 1, MOST_CHUNKS, 2), (65_537, MOST_CHUNKS, 2)],
)
@pytest.mark.parametrize(("status", "failure"), [(200, None), (500, Failure.HTTP_5XX)])
def test_a_body_in_crumbs_is_cut_and_the_status_counts(
    transport: Transport, count: int, read: int, connections: int, status: int, failure: Failure | None
) -> None:
    with Receiver(crumbs(count, status)) as receiver:
        replies = [transport.send(outbound(receiver.url())) for _ in range(2)]

        assert receiver.connections == connections
    for reply in replies:
        assert (reply.status, reply.failure, reply.body) == (status, failure, b"x" * read)
        assert reply.truncated == (count > read)


LARGE_HEADS: dict[str, Behaviour] = {
    "10,000 headers": many_headers(),
    "101 headers": many_headers(100),
    "one header of 1 MiB": raw(b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 1024 * 1024 + b"\r\n\r\n"),
    "a status line of 1 MiB": raw(b"HTTP/1.1 200 " + b"a" * 1024 * 1024 + b"\r\n\r\n"),
    "interim answers without end": raw(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 1000),
    "trailers without end": raw(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X-A: a\r\n" * 10_000
    ),
}


@pytest.mark.parametrize("behaviour", LARGE_HEADS.values(), ids=LARGE_HEADS)
def test_a_large_head_is_too_large(transport: Transport, behaviour: Behaviour) -> None:
    with Receiver(behaviour) as receiver:
        reply = transport.send(outbound(receiver.url()))

    assert (reply.status, reply.failure) == (None, Failure.TOO_LARGE)


NOT_HTTP = {
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "SMTP": b"220 mail.example ESMTP\r\n",
    "Redis": b"-ERR unknown command\r\n",
    "HTTP/2": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00",
    "HTTP/2.0 in text": b"HTTP/2.0 200 OK\r\n\r\n",
    "HTTP/0.9": b"<html>hello</html>\r\n\r\n",
    "TLS alert": b"\x15\x03\x01\x00\x02\x02\x46",
    "bytes": bytes(range(256)) * 10,
    "status in letters": b"HTTP/1.1 OK\r\n\r\n",
    "status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "length in letters": b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "chunk without size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nhello\r\n",
    "chunk longer than its size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
    "chunk of 2^68 bytes": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"f" * 17 + b"\r\n",
    "upgrade": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
    # broken off:
    "half a status line": b"HTTP/1.1 2",
    "half a head": b"HTTP/1.1 200 OK\r\nContent-Le",
    "half a body": b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
    "half a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
    "no last chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
}


@pytest.mark.parametrize("data", NOT_HTTP.values(), ids=NOT_HTTP)
def test_what_is_not_http_is_a_protocol_failure(transport: Transport, data: bytes) -> None:
    with Receiver(raw(data)) as receiver:
        reply = transport.send(outbound(receiver.url()))

        assert reply.failure is Failure.PROTOCOL, reply
        assert receiver.connections == 1  # a new connection is never tried twice


@pytest.mark.parametrize("behaviour", [close_early, raw(b"")], ids=["at once", "after the request"])
def test_no_answer_at_all_is_a_connect_failure(transport: Transport, behaviour: Behaviour) -> None:
    with Receiver(behaviour) as receiver:
        reply = transport.send(outbound(receiver.url()))

        assert (reply.failure, reply.status) == (Failure.CONNECT, None)
        assert receiver.connections == 1


UNUSUAL = {
    "bare newlines": b"HTTP/1.1 200 OK\nX-A: 1\nContent-Length: 2\n\nok",
    "no reason": b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\n\r\nok",
    "no length": b"HTTP/1.1 200 OK\r\n\r\nok",
    "length twice": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "length and chunks": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    ),
    "chunk extensions and trailers": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;a=b\r\no\r\n1 \r\nk\r\n0\r\nX-T: 1\r\n\r\n"
    ),
    "continue first": b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "early hints first": b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "folded header": b"HTTP/1.1 200 OK\r\nX-A: 1\r\n  2\r\nContent-Length: 2\r\n\r\nok",
    "a line that is no header": b"HTTP/1.1 200 OK\r\nnonsense\r\nContent-Length: 2\r\n\r\nok",
    "zero bytes in a header": b"HTTP/1.1 200 OK\r\nX-A: a\x00b\rc\r\nContent-Length: 2\r\n\r\nok",
}


@pytest.mark.parametrize("data", UNUSUAL.values(), ids=UNUSUAL)
def test_unusual_answers_are_understood(transport: Transport, data: bytes) -> None:
    with Receiver(raw(data)) as receiver:
        reply = transport.send(outbound(receiver.url()))

    assert (reply.status, reply.failure, reply.body) == (200, None, b"ok")
    assert not any("\x00" in value or "\r" in value for value in reply.headers.values())


def test_an_answer_before_the_request_was_read_counts(make: Make) -> None:
    def refuse(talk: t.Any) -> None:
        talk.send(response(413, {"Connection": "close"}))

    with Receiver(refuse) as receiver:
        reply = make().send(Outbound(receiver.url(), {}, b"x" * 100))

    # The reset that follows may overtake the answer, as it may for every client.
    assert reply.failure in (Failure.HTTP_4XX, Failure.CONNECT)


# Reading in pieces


class Pieces:
    """A connection that delivers its bytes in the pieces given."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = [piece for piece in pieces if piece]

    def receive(self, amount: int) -> bytes:
        if not self.pieces:
            return b""
        piece = self.pieces.pop(0)
        if len(piece) > amount:
            self.pieces.insert(0, piece[amount:])
        return piece[:amount]


def read_all(*pieces: bytes) -> tuple[int, dict[str, str], bytes, bool]:
    kept: list[bool] = []
    answer = Answer(Pieces(*pieces).receive, kept.append)
    answer.read_head()
    body = b"".join(iter(lambda: answer.read(7), b""))
    (is_kept,) = kept
    return answer.status, answer.headers, body, is_kept


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[begin:end] for begin, end in itertools.pairwise(edges)]


WHOLE = [*UNUSUAL.values(), response(204), response(404, {"X-A": "b"}, b"x" * 50)]


@given(st.sampled_from(WHOLE), st.lists(st.integers(0, 500), max_size=20))
def test_pieces_make_no_difference(data: bytes, places: list[int]) -> None:
    assert read_all(*cut(data, places)) == read_all(data)


_TEXT = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=":,"), min_size=1, max_size=10
)


@given(
    status=st.integers(200, 599).filter(lambda status: status not in (204, 304)),
    headers=st.dictionaries(_TEXT.map(lambda text: f"X-{text}"), _TEXT, max_size=8),
    body=st.binary(max_size=300),
    sizes=st.none() | st.lists(st.integers(1, 50), min_size=1, max_size=10),
)
def test_reads_like_the_standard_library(
    status: int, headers: dict[str, str], body: bytes, sizes: list[int] | None
) -> None:
    headers = {name.lower(): value for name, value in headers.items()}
    if sizes is None:
        data = response(status, headers, body)
    else:
        rest, chunks = body, b""
        for size in [*sizes, 1000]:
            if rest:
                chunks += b"%x\r\n%s\r\n" % (len(rest[:size]), rest[:size])
                rest = rest[size:]
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode()
        data = (
            b"HTTP/1.1 %d OK\r\nTransfer-Encoding: chunked\r\n" % status
            + lines
            + b"\r\n"
            + chunks
            + b"0\r\n\r\n"
        )

    class Socket:
        def makefile(self, mode: str) -> io.BytesIO:
            return io.BytesIO(data)

    theirs = http.client.HTTPResponse(t.cast(t.Any, Socket()))
    theirs.begin()
    assert read_all(data) == (theirs.status, dict(theirs.getheaders()), theirs.read(), True)


@given(st.binary(max_size=300) | st.binary(max_size=300).map(lambda data: b"HTTP/1.1 200 OK\r\n" + data))
def test_any_bytes_are_an_answer_or_one_of_three_failures(data: bytes) -> None:
    try:
        read_all(data)
    except (AnswerTooLarge, Broken, Malformed):
        pass


@pytest.mark.parametrize(
    ("head", "rest", "is_kept"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n", b"a", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n", b"a", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: Upgrade, Close\r\n", b"a", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n", b"a", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\nConnection: keep-alive\r\n", b"a", True),
        (b"HTTP/1.1 204 No Content\r\n", b"", True),
        (b"HTTP/1.1 200 OK\r\n", b"a", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n", b"aHTTP/1.1 200 OK\r\n", False),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n", False),
    ],
)
def test_only_a_clean_end_keeps_the_connection(head: bytes, rest: bytes, is_kept: bool) -> None:
    assert read_all(head + b"\r\n" + rest)[3] is is_kept
