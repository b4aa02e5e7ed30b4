"""How much of what others wrote one answer shows.

The law of this room: an answer has a size that does not depend on what a receiver or a customer has sent. What is
measured is what goes over the wire, after escaping: a control character is six bytes of JSON, a quote five of HTML.
"""

from __future__ import annotations

import json
import typing as t

from markupsafe import escape

__all__ = ["ATTEMPT", "BODY", "PAGE", "fit", "html_size", "json_size"]

PAGE = 480 * 1024
"""Bytes that the parts of one answer may have together: with what is around them it stays below 512 KiB."""
BODY = 384 * 1024
"""Bytes of JSON that the body of one delivery may have in an answer; a longer one is fetched by itself."""
ATTEMPT = 64 * 1024
"""Bytes of JSON of one attempt."""


def json_size(value: t.Any) -> int:
    """Return how many bytes a value has as JSON of ours."""
    return len(json.dumps(value, default=str))


def html_size(text: str) -> int:
    """How many bytes a text has on a page."""
    return len(str(escape(text)).encode("utf-8", "replace"))


def fit(text: str, room: int, size: t.Callable[[str], int] = json_size) -> str:
    """Return the longest beginning of a text that has at most so many bytes.

    :param size: measures a text; of a longer one never less.
    """
    if size(text) <= room:
        return text
    # A cut moves by whole characters, of which some are six bytes: halving finds the last that fits.
    low, high = 0, min(len(text), max(room, 0))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if size(text[:middle]) <= room else (low, middle - 1)
    return text[:low]
