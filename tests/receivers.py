"""Receivers on 127.0.0.1 for tests: good ones that record, and hostile ones of every kind we know.

A `Receiver` serves each connection in a thread with a *behaviour*, a function that gets a `Talk`::

    with Receiver(ok()) as receiver:
        post(receiver.url())
        assert receiver.requests[0].body == b"{}"

Behaviours that go on for ever pace themselves with `Talk.pause`, which ends when the receiver stops or the
client has gone away, so that no test waits for them.
"""

from __future__ import annotations

import contextlib
import ctypes
import datetime
import gzip
import io
import ipaddress
import pathlib
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Behaviour = Callable[["Talk"], None]
EVENT_HEADERS = (
    "webhook-event",
    "webhook-occurred-at",
    "webhook-sequence",
    "webhook-attempt",
    "webhook-delivery",
    "webhook-trigger",
)
"""Headers of every request in addition to the signed ones."""


@dataclass(frozen=True)
class Received:
    """A request as it came."""

    method: str
    target: str
    headers: dict[str, str]
    """By lower-case name."""
    lines: list[str]
    """Header lines as sent."""
    body: bytes
    connection: int
    """Which of the receiver's connections it came on, from 1."""


class Gone(Exception):
    """The client closed the connection, or the receiver stops."""


class Talk:
    """One connection, seen by a behaviour."""

    def __init__(self, receiver: Receiver, sock: socket.socket, number: int) -> None:
        self.receiver, self.sock, self.number = receiver, sock, number
        self._file = sock.makefile("rb")
        self.is_waiting = False
        """Whether it has answered all that has come, and waits for more."""

    def read_request(self) -> Received:
        """Return the next request and record it; raises `Gone` at the end of the connection."""
        self.is_waiting = True
        line = self._line()
        self.is_waiting = False
        if not line:
            raise Gone
        method, target, _ = line.split(" ", 2)
        lines = []
        while line := self._line():
            lines.append(line)
        headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
        body = self._file.read(int(headers.get("content-length", "0")))
        received = Received(method, target, headers, lines, body, self.number)
        self.receiver.record(received)
        return received

    def _line(self) -> str:
        return self._file.readline(65536).decode("latin-1").rstrip("\r\n")

    def send(self, data: bytes) -> None:
        """Send all of it."""
        self.sock.sendall(data)

    def pause(self, seconds: float) -> None:
        """Wait; raises `Gone` when the receiver stops."""
        if self.receiver.stopping.wait(seconds):
            raise Gone

    def close(self) -> None:
        self._file.close()
        self.sock.close()


class Receiver:
    """A server on a port of 127.0.0.1 (or another loopback address)."""

    def __init__(
        self,
        behaviour: Behaviour,
        *,
        tls: ssl.SSLContext | None = None,
        address: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        self.behaviour = behaviour
        self.tls = tls
        self.stopping = threading.Event()
        self.requests: list[Received] = []
        self.connections = 0
        self._changed = threading.Condition()
        self._talks: dict[socket.socket, Talk | None] = {}
        """Open connections, with their talk as soon as it has begun."""
        self._threads: list[threading.Thread] = []
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listener = socket.create_server((address, port), family=family, backlog=256)
        self.port: int = self._listener.getsockname()[1]

    def url(self, path: str = "/hook", host: str = "127.0.0.1") -> str:
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{path}"

    def record(self, received: Received) -> None:
        with self._changed:
            self.requests.append(received)
            self._changed.notify_all()

    def wait_for(self, count: int, seconds: float = 60.0) -> list[Received]:
        """Return the requests as soon as there are `count`."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.requests) >= count, seconds), self.requests
        return self.requests

    def wait_for_end(self, seconds: float = 60.0) -> None:
        """Return as soon as no connection is open."""
        with self._changed:
            assert self._changed.wait_for(lambda: not self._talks, seconds), "connections are still open"

    def wait_for_quiet(self, seconds: float = 60.0) -> None:
        """Return when all that has been sent has been read, recorded and answered; its senders have stopped."""
        looks = 0
        deadline = time.monotonic() + seconds
        while looks < 5:  # between reading and recording a thread may be seen to do neither
            assert time.monotonic() < deadline, "requests still come, or are not answered"
            looks = looks + 1 if self._is_quiet() else 0
            time.sleep(0.01)

    def _is_quiet(self) -> bool:
        with self._changed:
            talks = dict(self._talks)
        if not all(talk is not None and talk.is_waiting for talk in talks.values()):
            return False
        try:
            unread, _, _ = select.select([self._listener, *talks], [], [], 0)
        except (OSError, ValueError):  # one has just been closed
            return False
        return not unread and all(talk is not None and talk.is_waiting for talk in talks.values())

    def __enter__(self) -> Receiver:
        thread = threading.Thread(target=self._accept, daemon=True)
        self._threads.append(thread)
        thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stopping.set()
        # A shutdown wakes the thread in accept(), which close() alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        with self._changed:
            for sock in self._talks:
                try:
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
                except OSError:
                    pass  # closed by the other side
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self._changed:
                self.connections += 1
                self._talks[sock] = None
            thread = threading.Thread(target=self._serve, args=(sock, self.connections), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, plain: socket.socket, number: int) -> None:
        sock = plain
        try:
            if self.tls is not None:
                with self._changed:
                    self._talks.pop(plain, None)
                    sock = self.tls.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
                    self._talks[sock] = None
                if getattr(self.behaviour, "shakes_hands", True):
                    sock.do_handshake()
            self._talks[sock] = talk = Talk(self, sock, number)
            try:
                self.behaviour(talk)
            finally:
                talk.close()
        except (OSError, Gone, ValueError):
            pass  # the client went away, which hostile receivers are here for
        finally:
            sock.close()
            with self._changed:
                self._talks.pop(sock, None)
                self._changed.notify_all()


def forget(sock: socket.socket) -> None:
    """Have the kernel drop whatever comes for this connection, unseen, as a NAT does that has forgotten it (Linux)."""

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]

    drop_all = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))  # BPF: return 0
    so_attach_filter = 26
    program = Program(1, ctypes.addressof(drop_all))
    socket.socket.setsockopt(sock, socket.SOL_SOCKET, so_attach_filter, bytes(program))


def response(status: int = 200, headers: dict[str, str] | None = None, body: bytes = b"") -> bytes:
    """Return a whole answer with its length."""
    fields = {"Content-Length": str(len(body)), **(headers or {})}
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Status\r\n{lines}\r\n".encode("latin-1") + body


def ok(body: bytes = b"ok", status: int = 200, headers: dict[str, str] | None = None) -> Behaviour:
    """Record and answer, on a connection that is kept."""

    def behave(talk: Talk) -> None:
        while True:
            talk.read_request()
            talk.send(response(status, headers, body))

    return behave


def redirect(status: int, location: str) -> Behaviour:
    """Answer with a redirect."""
    return ok(b"", status, {"Location": location})


def raw(data: bytes) -> Behaviour:
    """Read a request, answer with these bytes, and close."""

    def behave(talk: Talk) -> None:
        talk.read_request()
        talk.send(data)

    return behave


@contextlib.contextmanager
def blackhole() -> Iterator[int]:
    """A port of 127.0.0.1 that never answers a SYN: its queue is full, and no process accepts."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        with pytest.raises(TimeoutError):
            socket.create_connection(listener.getsockname(), timeout=0.2)
        yield listener.getsockname()[1]


def hang(talk: Talk) -> None:
    """Read a request and never answer."""
    talk.read_request()
    talk.sock.recv(1)


def deaf(talk: Talk) -> None:
    """Accept, and never even read."""
    talk.pause(3600)


def close_early(talk: Talk) -> None:
    """Close the connection without reading or answering."""


def _drip(talk: Talk, data: bytes, interval: float) -> None:
    while True:
        talk.send(data)
        talk.pause(interval)


def drip_headers(interval: float = 0.05) -> Behaviour:
    """Begin a header that never ends, a byte at a time."""

    def behave(talk: Talk) -> None:
        talk.read_request()
        talk.send(b"HTTP/1.1 200 OK\r\nX-Drip: ")
        _drip(talk, b"a", interval)

    return behave


def drip_body(interval: float = 0.05, *, framing: str = "length") -> Behaviour:
    """Answer 200 and begin a body that never ends: `length`, `chunked`, or until `close`."""
    head = {
        "length": "Content-Length: 10000",
        "chunked": "Transfer-Encoding: chunked",
        "close": "X-Nothing: 1",
    }

    def behave(talk: Talk) -> None:
        talk.read_request()
        talk.send(f"HTTP/1.1 200 OK\r\n{head[framing]}\r\n\r\n".encode())
        _drip(talk, b"1\r\na\r\n" if framing == "chunked" else b"a", interval)

    return behave


def drip_handshake(interval: float = 0.05) -> Behaviour:
    """Begin a TLS record that never ends. For a `Receiver` without `tls`, reached by https."""

    def behave(talk: Talk) -> None:
        talk.sock.recv(4096)
        talk.send(b"\x16\x03\x03\x40\x00")
        _drip(talk, b"\x02", interval)

    return behave


def flood(size: int = 200 * 1024 * 1024, *, framing: str = "length", status: int = 200) -> Behaviour:
    """Answer with `size` bytes: `length`, `chunked`, or until `close`. Counts what left in `Receiver.flooded`."""

    def behave(talk: Talk) -> None:
        talk.read_request()
        block = b"x" * 65536
        head = {"length": f"Content-Length: {size}", "chunked": "Transfer-Encoding: chunked", "close": "X: 1"}
        talk.send(f"HTTP/1.1 {status} OK\r\n{head[framing]}\r\n\r\n".encode())
        for _ in range(size // len(block)):
            talk.send(b"10000\r\n" + block + b"\r\n" if framing == "chunked" else block)

    return behave


def gzip_bomb(size: int = 200 * 1024 * 1024) -> Behaviour:
    """Answer with zeros that unpack to `size` bytes, a thousandth of it on the wire."""
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=9) as file:
        for _ in range(size // (1024 * 1024)):
            file.write(bytes(1024 * 1024))
    return ok(packed.getvalue(), 200, {"Content-Encoding": "gzip"})


def many_headers(count: int = 10_000) -> Behaviour:
    """Answer 200 with so many headers."""
    lines = b"".join(b"X-%d: y\r\n" % number for number in range(count))
    return raw(b"HTTP/1.1 200 OK\r\n" + lines + b"Content-Length: 0\r\n\r\n")


def close_when_idle(requests: int = 1) -> Behaviour:
    """Answer so many requests on the *first* connection, and close it on the next, nothing read or sent.

    Later connections are good. This is the race of an idle timeout with our next request.
    """

    def behave(talk: Talk) -> None:
        for _ in range(requests):
            talk.read_request()
            talk.send(response(200, body=b"ok"))
        if talk.number == 1:
            talk.sock.recv(1)  # the next request begins: too late
        else:
            ok()(talk)

    return behave


class Authority:
    """A certificate authority for one test run; `path` is what a client must trust."""

    def __init__(self, folder: pathlib.Path, name: str = "Receivers' authority") -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = (
            self._builder(self._name, self._key.public_key())
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    key_cert_sign=True,
                    crl_sign=True,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
            .sign(self._key, hashes.SHA256())
        )
        self.path = str(folder / "authority.pem")
        pathlib.Path(self.path).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def context(self, *names: str, expired: bool = False) -> ssl.SSLContext:
        """Return a server's context with a certificate for these names and addresses."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver")])
        authority_id = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            self._builder(subject, key.public_key(), expired=expired)
            .add_extension(
                x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False
            )
            .add_extension(authority_id, critical=False)
            .sign(self._key, hashes.SHA256())
        )
        path = self._folder / f"{time.monotonic_ns()}.pem"
        path.write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
        return context

    def client(
        self, name: str = "sender", *, expired: bool = False, usage: x509.ObjectIdentifier | None = None
    ) -> tuple[str, str]:
        """Return a client's certificate and key, in PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, key.public_key(), expired=expired)
        if usage is not None:
            builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return certificate.public_bytes(serialization.Encoding.PEM).decode(), pem.decode()

    def demanding(self, *names: str, trusts: Authority | None = None) -> ssl.SSLContext:
        """Return a server's context that asks for a client certificate of this authority, or of another."""
        context = self.context(*names)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations((trusts or self).path)
        return context

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePublicKey, *, expired: bool = False
    ) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        day = datetime.timedelta(days=1)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 3 * day)
            .not_valid_after(now - day if expired else now + day)
        )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
