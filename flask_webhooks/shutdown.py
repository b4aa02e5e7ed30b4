"""A flag that a signal handler sets to make threads stop.

`threading.Event` cannot be used: its `set` takes a lock. A signal handler runs in the main thread, between two of its
instructions. If that thread is inside `Event.wait`, it holds the lock already, and the handler waits for ever.
"""

from __future__ import annotations

import contextlib
import threading

__all__ = ["ShutdownFlag"]


class ShutdownFlag:
    """Set once, never cleared. `set` only releases a lock, so a signal handler may call it; any thread may wait.

    After a fork, parent and child have separate flags: there is no pipe that both share.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._gate = threading.Lock()
        self._gate.acquire()

    def is_set(self) -> bool:
        """Whether the flag is set."""
        return self._is_set

    def set(self) -> None:
        """Set the flag and wake all waiting threads."""
        self._is_set = True
        self._open()

    def wait(self, seconds: float) -> bool:
        """Wait until the flag is set, at most `seconds`; return whether it is."""
        if not self._is_set and self._gate.acquire(timeout=max(0.0, seconds)):
            self._open()  # for the next waiting thread
        return self._is_set

    def _open(self) -> None:
        with contextlib.suppress(RuntimeError):  # the lock is released already
            self._gate.release()
