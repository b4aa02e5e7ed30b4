"""Reads one HTTP/1.1 answer from a connection (RFC 9112), with a bound on every size.

The law of this room: whatever a receiver sends, we hold at most `MOST_HEAD` bytes of head or one buffer of body, and
nothing is decompressed. Where two parsers could read the bytes differently, the answer is malformed.

`http.client` does the same with a mail parser, at several times the cost of the rest of an attempt. It also treats
103 (Early Hints) as a final answer, and cannot say whether anything was read before a connection broke.
"""

from __future__ import annotations

import re
import time
import typing as t
from collections.abc import Callable

__all__ = ["Answer", "AnswerTooLarge", "Broken", "Malformed"]

MOST_HEAD: t.Final = 65536
"""Bytes of status line and headers together, and of trailers."""

MOST_HEADERS: t.Final = 100
"""Header lines, as in `http.client`."""

MOST_INTERIM: t.Final = 8
"""Interim (1xx) answers before the final one."""

MOST_CHUNKS: t.Final = 512
"""Chunks of a body, after which it is cut like one that is too long: the status counts, the connection is closed.

A chunk costs the same time whatever its size, and 65,536 chunks of one byte held the interpreter for 0.3 s. The limit
is not lower, so that a receiver that sends a chunk every 50 ms still ends as a `timeout`.
"""

BUFFER: t.Final = 65536
"""Bytes read from the connection at once."""

_HEAD_END: t.Final = re.compile(rb"\r?\n\r?\n")
_STATUS_LINE: t.Final = re.compile(r"HTTP/1\.([0-9]) ([1-9][0-9]{2})(?: .*)?")
_CONTROLS: t.Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)")
_CHUNK_SIZE: t.Final = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;.*)?")


class Malformed(Exception):
    """The receiver's bytes are not HTTP/1.1."""


class AnswerTooLarge(Exception):
    """The head exceeds our limits; a body that exceeds them is cut instead."""


class Broken(Exception):
    """The connection was closed before the answer was complete."""


class Answer:
    """A final answer whose head has been read; the body is read from it in pieces.

    :param receive: returns up to the given number of bytes from the connection; no bytes at its end.
    :param finish: called once, when the body is complete or abandoned, with whether the connection can carry another
        request.
    """

    __slots__ = (
        "_at",
        "_buffer",
        "_chunked",
        "_chunks",
        "_finish",
        "_keep",
        "_left",
        "_receive",
        "first_byte",
        "headers",
        "is_cut",
        "status",
    )

    def __init__(self, receive: Callable[[int], bytes], finish: Callable[[bool], None]) -> None:
        self._receive = receive
        self._finish: Callable[[bool], None] | None = finish
        self._buffer = b""
        self._at = 0
        """Position in the buffer: the unread rest is not copied for each line and piece."""
        self.first_byte: float | None = None
        """Instant (`time.monotonic`) of the first byte; `None` if no byte arrived."""
        self.status = 0
        """Status code; 101 is final."""
        self.headers: dict[str, str] = {}
        """In the order and spelling of the receiver; the values of repeated headers are joined by a comma."""
        self._left: int | None = 0
        """Bytes left of the body, or of the current chunk; `None` means until the connection ends."""
        self._chunked = False
        self._chunks = 0
        self.is_cut = False
        """Whether the body had more than `MOST_CHUNKS` chunks, and was not read to its end."""
        self._keep = False

    def read_head(self) -> None:
        """Read the status line and the headers of the final answer.

        :raises Broken: the connection ended first; if `first_byte` is `None`, before any byte.
        :raises Malformed: the bytes are not HTTP/1.1.
        :raises AnswerTooLarge: the answer exceeds `MOST_HEAD`, `MOST_HEADERS` or `MOST_INTERIM`.
        """
        for _ in range(MOST_INTERIM + 1):
            version, fields = self._parse_head(self._take_head())
            if self.status >= 200 or self.status == 101:
                return self._frame(version, fields)
        raise AnswerTooLarge(f"more than {MOST_INTERIM} interim answers")

    def read(self, amount: int, decode_content: bool = False) -> bytes:
        """Return up to `amount` bytes of the body as received; empty only at its end.

        :param decode_content: ignored; it gives this method the signature of `urllib3.HTTPResponse.read`.
        :raises Broken: the connection ended within the body.
        :raises Malformed: the chunked coding is invalid.
        """
        if self._finish is None:
            return b""
        if self._chunked and self._left == 0 and not self._next_chunk():
            return self._end()
        if self._left == 0:
            return self._end()
        if self._is_empty:
            self._buffer, self._at = self._receive(BUFFER), 0
            if not self._buffer:
                if self._left is None:
                    return self._end()
                raise Broken("within the body")
        take = amount if self._left is None else min(amount, self._left)
        piece = self._buffer[self._at : self._at + take]
        self._at += len(piece)
        if self._left is not None:
            self._left -= len(piece)
            if self._left == 0:
                self._end_piece()
        return piece

    @property
    def _is_empty(self) -> bool:
        return self._at == len(self._buffer)

    def close(self) -> None:
        """Abandon the rest of the body; the connection cannot be used again."""
        finish, self._finish = self._finish, None
        if finish is not None:
            finish(False)

    def _end(self) -> bytes:
        finish, self._finish = self._finish, None
        if finish is not None:
            # Bytes after the end of the answer belong to no request of ours: do not use the connection again.
            finish(self._keep and self._is_empty)
        return b""

    def _end_piece(self) -> None:
        if not self._chunked:
            self._end()
        elif self._take_line():
            raise Malformed("a chunk longer than its size")

    def _more(self, where: str) -> bytes:
        data = self._receive(BUFFER)
        if not data:
            raise Broken(where)
        return data

    def _take_head(self) -> str:
        """Return the next head without its empty line; the rest stays in the buffer."""
        if self._is_empty:
            self._buffer, self._at = self._more("before an answer"), 0
        if self.first_byte is None:
            self.first_byte = time.monotonic()
        end = _HEAD_END.search(self._buffer, self._at)
        if end is None:
            end = self._gather_head()
        if end.start() - self._at > MOST_HEAD:
            raise AnswerTooLarge(f"a head of more than {MOST_HEAD} bytes")
        head, self._at = self._buffer[self._at : end.start()], end.end()
        return head.decode("latin-1")

    def _gather_head(self) -> re.Match[bytes]:
        """Read until the head is complete; bytes already searched are not searched again, however small the pieces."""
        gathered = bytearray(self._buffer[self._at :])
        end = None
        while end is None:
            if len(gathered) > MOST_HEAD:
                raise AnswerTooLarge(f"a head of more than {MOST_HEAD} bytes")
            if not b"HTTP/1.".startswith(gathered[:7]):
                raise Malformed(f"begins with {bytes(gathered[:20])!r}")
            searched = max(0, len(gathered) - 3)
            gathered += self._more("within the head")
            end = _HEAD_END.search(gathered, searched)
        self._buffer, self._at = bytes(gathered), 0
        return t.cast("re.Match[bytes]", _HEAD_END.search(self._buffer, searched))

    def _parse_head(self, head: str) -> tuple[int, dict[str, str]]:
        """Return the minor version and the headers by lower-case name; keep status and headers."""
        if _CONTROLS.search(head):  # headers are stored, and not every database can hold control characters
            head = _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", head)
        lines = head.split("\n")
        match = _STATUS_LINE.fullmatch(lines[0].rstrip("\r"))
        if match is None:
            raise Malformed(f"begins with {lines[0][:20]!r}")
        if len(lines) > MOST_HEADERS + 1:
            raise AnswerTooLarge(f"more than {MOST_HEADERS} headers")
        self.status = int(match[2])
        fields: dict[str, str] = {}
        spelling: dict[str, str] = {}
        name = ""
        for line in lines[1:]:
            if line[0] in " \t":  # obs-fold (RFC 9112, section 5.2)
                if name:
                    fields[name] += " " + line.strip()
                continue
            spelled, colon, value = line.partition(":")
            if not colon:
                name = ""  # a line without a colon is no header: skipped, as browsers do
                continue
            name = spelled.strip().lower()
            value = value.strip()
            if name in fields:
                fields[name] += ", " + value
            else:
                fields[name], spelling[name] = value, spelled.strip()
        self.headers = {spelling[key]: value for key, value in fields.items()}
        return int(match[1]), fields

    def _frame(self, version: int, fields: dict[str, str]) -> None:
        """Determine where the body ends (RFC 9112, section 6.3) and whether the connection can be kept (9.3)."""
        tokens = fields.get("connection", "").lower()
        self._keep = "keep-alive" in tokens if version == 0 else "close" not in tokens
        coding, length = fields.get("transfer-encoding"), fields.get("content-length")
        # "identity" means the same as no header (RFC 2616).
        if coding is not None and coding.strip().lower() == "identity":
            coding = None
        if self.status in (204, 304):
            # These statuses have no body. If the headers announce one, it may still follow: do not keep the connection.
            self._keep = self._keep and coding is None and length in (None, "0")
            self._end()
        elif self.status == 101:
            self._keep = False
            self._end()
        elif coding is not None:
            self._chunked = coding.lower().rpartition(",")[2].strip() == "chunked"
            self._left = 0 if self._chunked else None
            self._keep = self._keep and self._chunked and length is None
        elif length is None:
            self._left, self._keep = None, False
        else:
            self._left = _length(length)
            if self._left == 0:
                self._end()

    def _next_chunk(self) -> bool:
        """Read the size of the next chunk and return True; after the last one read the trailers and return False."""
        match = _CHUNK_SIZE.fullmatch(self._take_line())
        if match is None:
            raise Malformed("a chunk without a size")
        self._left = int(match[1], 16)
        if self._left == 0:
            for _ in range(MOST_HEADERS + 1):
                if not self._take_line():
                    return False
            raise AnswerTooLarge(f"more than {MOST_HEADERS} trailers")
        self._chunks += 1
        if self._chunks > MOST_CHUNKS:
            self.is_cut = True
            self.close()
        return not self.is_cut

    def _take_line(self) -> bytes:
        end = self._buffer.find(b"\n", self._at)
        while end < 0:
            begun = self._buffer[self._at :]
            if len(begun) > 4096:
                raise Malformed("a line of more than 4096 bytes between chunks")
            self._buffer, self._at = begun + self._more("within the body"), 0
            end = self._buffer.find(b"\n", len(begun))
        line, self._at = self._buffer[self._at : end], end + 1
        return line.rstrip(b"\r")


def _length(text: str) -> int:
    """Return the length; a repeated Content-Length must always have the same value (RFC 9112, section 6.3, item 5)."""
    value = text
    if "," in text:
        value, *others = {each.strip() for each in text.split(",")}
        if others:
            raise Malformed(f"Content-Length: {text[:40]}")
    if not (len(value) <= 18 and value.isascii() and value.isdigit()):
        raise Malformed(f"Content-Length: {text[:40]}")
    return int(value)
