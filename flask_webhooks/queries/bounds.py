"""Limits of what one answer shows of texts of receivers and customers.

The law of this module: no text that a receiver or a customer has sent makes an answer larger than 512 KiB. Sizes are
those after escaping: a control character is six bytes of JSON, a quotation mark five of HTML.
"""

from __future__ import annotations

import json
import typing as t

from markupsafe import escape

__all__ = ["ATTEMPT", "BODY", "PAGE", "fit", "html_size", "json_size"]

PAGE = 480 * 1024
"""Bytes of all parts of one answer: with the rest of it, it stays below 512 KiB."""
BODY = 384 * 1024
"""Bytes of JSON of a delivery's body in an answer; a longer one has to be downloaded."""
ATTEMPT = 64 * 1024
"""Bytes of JSON of one attempt."""


def json_size(value: t.Any) -> int:
    """Return the bytes of a value as JSON, in ASCII as our answers are."""
    return len(json.dumps(value, default=str))


def html_size(text: str) -> int:
    """Return the bytes of a text on a page, escaped for HTML."""
    return len(str(escape(text)).encode("utf-8", "replace"))


def fit(text: str, room: int, size: t.Callable[[str], int] = json_size) -> str:
    """Return the longest beginning of a text that has at most `room` bytes.

    :param size: returns the bytes of a text; never fewer for a longer text.
    """
    if size(text) <= room:
        return text
    # Characters have one to six bytes, so the place of the cut is found by halving.
    low, high = 0, min(len(text), max(room, 0))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if size(text[:middle]) <= room else (low, middle - 1)
    return text[:low]
