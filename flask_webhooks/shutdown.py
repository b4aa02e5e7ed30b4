"""The sign to stop that a signal handler gives to those who wait for it.

`threading.Event.set` takes a lock. A handler runs in the main thread, between two of its instructions: if that thread
is inside `Event.wait` just then, it holds the lock already, and waits for itself for ever.
"""

from __future__ import annotations

import contextlib
import threading

__all__ = ["ShutdownFlag"]


class ShutdownFlag:
    """Set once, never cleared. `set` only lets go of a lock, so it may be called anywhere; any thread may wait.

    A forked child has its own from then on: there is no pipe that both would share.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._gate = threading.Lock()
        self._gate.acquire()

    def is_set(self) -> bool:
        """Whether it is time to stop."""
        return self._is_set

    def set(self) -> None:
        """Wake everybody who waits."""
        self._is_set = True
        self._open()

    def wait(self, seconds: float) -> bool:
        """Wait until it is set, at most so long; return whether it is."""
        if not self._is_set and self._gate.acquire(timeout=max(0.0, seconds)):
            self._open()  # for the next who waits
        return self._is_set

    def _open(self) -> None:
        with contextlib.suppress(RuntimeError):  # open already
            self._gate.release()
