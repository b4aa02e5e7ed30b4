"""A receiver's answer is legible in whatever encoding it comes, and reading it is bounded."""

from __future__ import annotations

import codecs
import gzip
import itertools
import time
import tracemalloc
import typing as t
import zlib

import pytest
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st

from flask_webhooks import queries
from flask_webhooks.models import Attempt
from flask_webhooks.queries import legible
from flask_webhooks.queries.answers import _CHARSETS, MOST_TEXT
from flask_webhooks.state import state_of
from tests.api.conftest import Customer
from tests.console.conftest import Visitor, load_principal
from tests.receivers import Receiver, ok
from tests.stage import attempts, deliveries, fill, subscribe
from tests.worker.answers import run

TEXT = '{"error": "支払いを受け付けられません"}'
LATIN = "Zahlung nicht möglich: 5 £"


def typed(charset: str) -> dict[str, str]:
    return {"Content-Type": f"application/json; charset={charset}"}


def raw_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


@pytest.mark.parametrize(
    ("body", "headers", "text"),
    [
        (TEXT.encode(), {}, TEXT),
        (TEXT.encode("utf-8-sig"), {}, TEXT),
        (TEXT.encode("shift_jis"), typed("Shift_JIS"), TEXT),
        (TEXT.encode("shift_jis"), typed('"shift-jis"'), TEXT),
        ("①".encode("cp932"), typed("Shift_JIS"), "①"),
        (TEXT.encode("euc_jp"), typed("EUC-JP"), TEXT),
        (TEXT.encode("iso2022_jp"), typed("ISO-2022-JP"), TEXT),
        (TEXT.encode("utf-16"), typed("utf-16"), TEXT),
        (TEXT.encode("utf-16"), {}, TEXT),
        (codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"), typed("utf-8"), TEXT),
        (TEXT.encode("utf-16-le"), typed("utf-16"), TEXT),
        (TEXT.encode("utf-16-be"), typed("UTF-16"), TEXT),
        (TEXT.encode("utf-16-be"), typed("utf-16be"), TEXT),
        (TEXT.encode("utf-32"), {}, TEXT),
        (TEXT.encode("utf-32-be"), typed("utf-32"), TEXT),
        (LATIN.encode("latin-1"), {"content-type": "text/plain;charset=ISO-8859-1"}, LATIN),
        (
            "5 €".encode("cp1252"),
            {"CONTENT-TYPE": "text/plain; format=flowed; Charset = windows-1252"},
            "5 €",
        ),
        ("Привет".encode("koi8-r"), typed("koi8-r"), "Привет"),
        ("中文".encode("gb18030"), typed("GB18030"), "中文"),
        ("㐀€".encode("gb18030"), typed("gb2312"), "㐀€"),
        ("똠".encode("cp949"), typed("euc-kr"), "똠"),
        ("ไทย€".encode("cp874"), typed("windows-874"), "ไทย€"),
        ("é".encode("mac-roman"), typed("x-mac-roman"), "é"),
        ("שלום".encode("iso8859-8"), typed("ISO-8859-8-I"), "שלום"),
        (TEXT.encode(), typed("utf8mb4"), TEXT),
        (gzip.compress(TEXT.encode()), {"Content-Encoding": "gzip"}, TEXT),
        (gzip.compress(TEXT.encode("shift_jis")), {"Content-Encoding": "X-GZip", **typed("sjis")}, TEXT),
        (gzip.compress(b"one ") + gzip.compress(b"two"), {"Content-Encoding": "gzip"}, "one two"),
        (zlib.compress(TEXT.encode()), {"Content-Encoding": "deflate"}, TEXT),
        (raw_deflate(TEXT.encode()), {"Content-Encoding": "deflate"}, TEXT),
        (gzip.compress(zlib.compress(b"in")), {"Content-Encoding": "deflate, identity, gzip"}, "in"),
        ("ไทย".encode("cp874"), typed("windows-874"), "ไทย"),
        (TEXT.encode("shift_jis"), typed("x-sjis"), TEXT),
        ("שלום".encode("iso8859_8"), typed("iso-8859-8-i"), "שלום"),
        ("한국".encode("cp949"), typed("windows-949"), "한국"),
        ("Привет".encode("mac_cyrillic"), typed("x-mac-cyrillic"), "Привет"),
        ("κόσμε".encode("iso8859_7"), typed("sun_eu_greek"), "κόσμε"),
        (TEXT.encode("utf-16-be"), typed("unicodeFFFE"), TEXT),
        (b"the sign \xef\xbf\xbd itself", {}, "the sign \ufffd itself"),
        (b"", {"Content-Encoding": "gzip"}, ""),
    ],
    ids=map(str, itertools.count()),
)
def test_a_body_is_read_as_its_headers_say(body: bytes, headers: dict[str, str], text: str) -> None:
    assert legible(body, headers) == queries.Legible(text)


@pytest.mark.parametrize(
    ("body", "headers", "text", "note"),
    [
        (b"a\xffb", {}, "a\ufffdb", "Some bytes are not valid UTF-8 and are shown as \ufffd."),
        (b"\x81", typed("shift_jis"), "\ufffd", "Some bytes are not valid CP932"),
        (b"a\xff", typed("ascii"), "a\ufffd", "Some bytes are not valid ASCII"),
        (b"abc", typed("utf-17"), "abc", "The charset utf-17 is unknown: it is read as UTF-8."),
        (b"abc", typed("zlib"), "abc", "The charset zlib is unknown"),
        (b"abc", typed("rot13"), "abc", "is unknown: it is read as UTF-8"),
        (b"abc-", typed("punycode"), "abc-", "is unknown: it is read as UTF-8"),
        (b"\\u0041", typed("unicode_escape"), "\\u0041", "is unknown: it is read as UTF-8"),
        (b"abc", typed("../../etc/passwd"), "abc", "is unknown: it is read as UTF-8"),
        (
            b"plain",
            {"Content-Encoding": "gzip"},
            "plain",
            "Its headers say that it is compressed as gzip, but it is not",
        ),
        (b"plain", {"Content-Encoding": "deflate"}, "plain", "compressed as deflate, but it is not"),
        (
            b"\x0b\x02",
            {"Content-Encoding": "br"},
            "\x0b\x02",
            "It is compressed as br, which is not decompressed here.",
        ),
        (gzip.compress(b"x" * 99)[:-4], {"Content-Encoding": "gzip"}, "x" * 99, "is incomplete or damaged"),
        (
            gzip.compress(b"x" * 99) + b"junk",
            {"Content-Encoding": "gzip"},
            "x" * 99,
            "followed by other bytes",
        ),
        (
            zlib.compress(b"x" * 99) + b"junk",
            {"Content-Encoding": "deflate"},
            "x" * 99,
            "followed by other bytes",
        ),
        (
            gzip.compress(b"x", mtime=0) + bytes(300),
            {"Content-Encoding": "gzip"},
            "x",
            "followed by other bytes",
        ),
        (b"x", {"Content-Encoding": "gzip, " * 4}, "x", "compressed more than 3 times"),
        (b"x", {"Content-Encoding": "gzip," * 30_000}, "x", "compressed more than 3 times"),
    ],
    ids=map(str, itertools.count()),
)
def test_what_cannot_be_read_says_why(body: bytes, headers: dict[str, str], text: str, note: str) -> None:
    found = legible(body, headers)

    assert found.text == text
    assert note in (found.note or "")


def test_what_is_left_of_a_body_that_was_cut_is_shown_without_a_complaint() -> None:
    numbers = " ".join(map(str, range(20_000)))
    packed = gzip.compress(numbers.encode())[:10_000]
    found = legible(packed, {"Content-Encoding": "gzip"}, is_cut=True)

    assert len(found.text) > 10_000
    assert numbers.startswith(found.text)
    assert found.note is None
    for charset in ("utf-8", "shift_jis", "utf-16"):
        whole = TEXT.encode(charset)
        cut = legible(whole[:-3], typed(charset), is_cut=True)
        assert TEXT.startswith(cut.text)
        assert cut.note is None


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_bomb_is_bounded(layers: int) -> None:
    body = b"\0" * 20_000_000
    for _ in range(layers):
        body = gzip.compress(body, 9)
    tracemalloc.start()
    began = time.process_time()
    found = legible(body[:16_384], {"Content-Encoding": ", ".join(["gzip"] * layers)}, is_cut=True)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert len(found.text) == MOST_TEXT
    assert "Only the first 32768 bytes" in (found.note or "")
    assert peak < 2_000_000
    assert time.process_time() - began < 1.0


@given(
    st.binary(max_size=400),
    st.sampled_from(["", "gzip", "deflate", "gzip, deflate", "br", "identity", ",", "\x00"]),
    st.sampled_from(["", *sorted(_CHARSETS), "x" * 60, "'", '"', ";;"]),
    st.booleans(),
    st.sampled_from([bytes, gzip.compress, zlib.compress]),
)
def test_no_body_raises(
    body: bytes, coding: str, charset: str, is_cut: bool, pack: t.Callable[[bytes], bytes]
) -> None:
    headers = {"Content-Encoding": coding, "Content-Type": f"text/html; charset={charset}"}
    found = legible(pack(body), headers, is_cut=is_cut)

    found.text.encode("utf-8", "surrogatepass")
    assert found.note is None or found.note


HTML = b"<script>alert(1)</script>"


@pytest.fixture
def answered(make_app: t.Callable[..., Flask]) -> tuple[Flask, Attempt]:
    """An app, and an attempt that was answered with packed Japanese HTML."""
    from flask_webhooks import Webhooks

    hooks = Webhooks()
    hooks.principal_loader(load_principal)
    app = make_app(webhooks=hooks)
    state = state_of(app)
    headers = {"Content-Encoding": "gzip", "Content-Type": "text/html; charset=Shift_JIS"}
    body = gzip.compress(HTML + "支払い".encode("shift_jis"))
    with Receiver(ok(body, 500, headers)) as receiver:
        fill(state, [subscribe(state, receiver.url())], 1)
        run(state)
    return app, attempts(state)[0]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_api_and_console_show_the_text_and_give_the_bytes(answered: tuple[Flask, Attempt]) -> None:
    app, attempt = answered
    [delivered] = deliveries(state_of(app))
    assert delivered.state == "pending"  # judged by its status, not by what was unpacked
    call = Customer(app.test_client())
    path = f"/deliveries/{delivered.id}"
    [shown] = call("GET", path, expect=200)["attempt_log"]

    assert shown["response"]["body"] == HTML.decode() + "支払い"
    assert shown["response"]["body_note"] is None
    page = Visitor(app).get(path).text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;支払い" in page
    assert HTML.decode() not in page
    assert f"{path}?response={attempt.id}" in page
    found = [Visitor(app).get(f"{path}?response={attempt.id}")]
    for question in ("", f"?attempt={attempt.id}"):
        call("GET", f"{path}/response{question}", expect=200)
        found.append(call.last)
    for each in found:
        assert each.data == attempt.response_body
        assert each.headers["Content-Type"] == "application/octet-stream"
        assert each.headers["X-Content-Type-Options"] == "nosniff"
        assert each.headers["Content-Disposition"].startswith("attachment; filename=")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_bytes_are_those_of_the_owners_own_attempt(answered: tuple[Flask, Attempt]) -> None:
    app, attempt = answered
    nowhere = "0197f0a0-0000-7000-8000-000000000000"
    path = f"/deliveries/{attempt.delivery_id}/response?attempt={attempt.id}"
    others = [path.replace(attempt.id, nowhere), path.replace(attempt.delivery_id, nowhere)]

    Customer(app.test_client(), "2")("GET", path, expect=404)
    assert (
        Visitor(app, "2").get(f"/deliveries/{attempt.delivery_id}?response={attempt.id}").status_code == 404
    )
    for wrong, status in ((nowhere, 404), ("", 404), ("x", 404), ("x\0", 400)):
        path_of = f"/deliveries/{attempt.delivery_id}?response={wrong}"
        assert Visitor(app).get(path_of).status_code == status
    for other in others:
        Customer(app.test_client())("GET", other, expect=404)
    Customer(app.test_client())("GET", path + "0", expect=422)
