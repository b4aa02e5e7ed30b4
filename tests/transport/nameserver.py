"""A real resolver for tests: a DNS server on loopback UDP, and a client that speaks to it.

The client has the signature and the errors of `socket.getaddrinfo`, so that the transport resolves over a real
wire, and the server may answer something else each time it is asked (RFC 1035, sections 4.1 and 3.4.1).
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
import threading
import typing as t
from collections.abc import Callable

Answers = Callable[[str, int], t.Sequence[str]]
"""Gets the name and how often it has been asked for; returns addresses of both families."""

A, AAAA, NO_SUCH_NAME = 1, 28, 3


class NameServer:
    """Answers A and AAAA questions; `queries` counts the A questions by name."""

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self.queries: dict[str, int] = {}
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = self._socket.getsockname()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._stopping = False

    def __enter__(self) -> NameServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._socket.sendto(b"", self.address)  # wakes the thread
        self._thread.join(10)
        self._socket.close()

    def _serve(self) -> None:
        while True:
            data, client = self._socket.recvfrom(512)
            if self._stopping:
                return
            self._socket.sendto(self._answer(data), client)

    def _answer(self, query: bytes) -> bytes:
        name, end = read_name(query, 12)
        (kind,) = struct.unpack_from("!H", query, end)
        if kind == A:
            self.queries[name] = self.queries.get(name, 0) + 1
        addresses = [ipaddress.ip_address(text) for text in self._answers(name, self.queries.get(name, 1))]
        chosen = [address.packed for address in addresses if address.version == (4 if kind == A else 6)]
        code = 0 if addresses else NO_SUCH_NAME
        head = struct.pack("!2sHHHHH", query[:2], 0x8180 | code, 1, len(chosen), 0, 0)
        records = [struct.pack("!HHHIH", 0xC00C, kind, 1, 0, len(packed)) + packed for packed in chosen]
        return head + query[12 : end + 4] + b"".join(records)

    def getaddrinfo(self, host: str, port: int, **_: t.Any) -> list[tuple[t.Any, ...]]:
        """Resolve `host` with this server, like `socket.getaddrinfo`."""
        found: list[tuple[t.Any, ...]] = []
        for kind, family in ((A, socket.AF_INET), (AAAA, socket.AF_INET6)):
            for packed in self._ask(host, kind):
                address = socket.inet_ntop(family, packed)
                where = (address, port) if family == socket.AF_INET else (address, port, 0, 0)
                found.append((family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", where))
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return found

    def _ask(self, host: str, kind: int) -> list[bytes]:
        labels = b"".join(bytes([len(label)]) + label.encode() for label in host.split("."))
        number = os.urandom(2)
        question = (
            number + struct.pack("!HHHHH", 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)
        )
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(5)
            sock.sendto(question, self.address)
            answer = sock.recv(4096)
        assert answer[:2] == number
        (count,) = struct.unpack_from("!H", answer, 6)
        offset = len(question)
        packed = []
        for _ in range(count):
            (length,) = struct.unpack_from("!H", answer, offset + 10)
            packed.append(answer[offset + 12 : offset + 12 + length])
            offset += 12 + length
        return packed


def read_name(data: bytes, offset: int) -> tuple[str, int]:
    """Return the name at `offset` and where it ends."""
    labels = []
    while length := data[offset]:
        labels.append(data[offset + 1 : offset + 1 + length].decode())
        offset += 1 + length
    return ".".join(labels), offset + 1
