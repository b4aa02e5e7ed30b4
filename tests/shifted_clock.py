"""A process whose machine has another clock: `python -m tests.shifted_clock FILE MODULE WORDS…` runs a module in it.

The file holds the seconds by which the clock is ahead; when its content changes, the clock jumps. All functions of
Python that return the time are shifted, except the monotonic clock, which no operator can set.
"""

from __future__ import annotations

import datetime
import runpy
import sys
import time
import typing as t
from pathlib import Path

__all__ = ["ahead"]

_real, _time, _time_ns = datetime.datetime, time.time, time.time_ns


def ahead(path: Path) -> float:
    """Return by how many seconds the clock is ahead; between two writes of the file, as before."""
    global _last
    text = path.read_text()
    _last = float(text) if text else _last
    return _last


_last = 0.0


class _Meta(type):
    def __instancecheck__(cls, instance: object) -> bool:
        return isinstance(instance, _real)


def set_clock(path: Path) -> None:
    """Give this process the wrong time, before anything else is imported."""

    class Wrong(_real, metaclass=_Meta):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> t.Any:
            return _real.now(tz) + datetime.timedelta(seconds=ahead(path))

        @classmethod
        def utcnow(cls) -> t.Any:
            return cls.now(datetime.UTC).replace(tzinfo=None)

    t.cast("t.Any", datetime).datetime = Wrong
    time.time = lambda: _time() + ahead(path)
    time.time_ns = lambda: _time_ns() + int(ahead(path) * 1e9)


if __name__ == "__main__":
    set_clock(Path(sys.argv[1]))
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
