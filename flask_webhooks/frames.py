"""What an exception takes along: the local variables of every frame that it has left.

Error trackers and debuggers show these variables, and the contents of dicts among them, whatever their `repr` hides and
whatever they are called. The law of this room: an exception that leaves a door or a sender of ours, where secrets are
in the clear, has nothing in its frames.
"""

from __future__ import annotations

import typing as t
from types import TracebackType

__all__ = ["emptied"]

E = t.TypeVar("E", bound=BaseException)

HOLDERS = frozenset(
    "flask_webhooks cryptography http json marshmallow requests socket ssl urllib3 webargs werkzeug".split()
)
"""Packages through whose frames secrets pass. What the host's own code held is the host's to see."""


def emptied(error: E) -> E:
    """Forget the local variables of an exception's frames, and of those that it came from; return it.

    A frame that is still running keeps them: of the caller's own nothing is forgotten.
    """
    for each in _chain(error):
        for frame in _frames(each.__traceback__):
            if frame.f_globals.get("__name__", "").partition(".")[0] in HOLDERS:
                try:
                    frame.clear()
                except RuntimeError:
                    continue  # it is running
    return error


def _frames(traceback: TracebackType | None) -> t.Iterator[t.Any]:
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next


def _chain(error: BaseException) -> t.Iterator[BaseException]:
    seen: set[int] = set()
    left: list[BaseException | None] = [error]
    while left:
        found = left.pop()
        if found is not None and id(found) not in seen:
            seen.add(id(found))
            yield found
            left += [found.__cause__, found.__context__]
            if isinstance(found, BaseExceptionGroup):
                left += found.exceptions
