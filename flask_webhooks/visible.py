"""Makes text from outside safe to show, and checks that every database can store it.

The law of this room: text from a receiver, a customer or a database is shown, on a page or in a terminal, without
characters that have an effect instead of a glyph: no control characters (C0, DEL, C1, which begin terminal escapes), no
invisible ones, none that change the direction of text, and no half of a surrogate pair.
"""

from __future__ import annotations

import traceback

__all__ = ["is_storable", "printable", "visible"]


def visible(text: str, keep: str = "\n\t") -> str:
    """Return a text in which each non-printable character is escaped as in JSON: `\\u001b`.

    :param keep: non-printable characters that are not escaped.
    """
    if text.isprintable():
        return text
    return "".join([mark if mark.isprintable() or mark in keep else _escaped(mark) for mark in text])


def printable(error: Exception) -> Exception | None:
    """Return the error if a log file can hold its traceback, else None: half of a surrogate pair, which UTF-8 cannot
    encode, would lose the whole log line."""
    try:
        "".join(traceback.format_exception(error)).encode()
    except UnicodeEncodeError:
        return None
    return error


def is_storable(text: str) -> bool:
    """Whether every database can store a text: it has no NUL and no half of a surrogate pair."""
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _escaped(mark: str) -> str:
    code = ord(mark)
    if code <= 0xFFFF:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
