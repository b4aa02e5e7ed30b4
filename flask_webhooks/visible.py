"""Text from outside as text that only says something, and that every database can keep.

The law of this room: what comes from a receiver, a customer or a database is shown, on a page or in a terminal, without
any character that does something instead: no control character (C0, DEL, C1, with which terminal escapes begin), none
that changes the direction of text or cannot be seen, no half of a surrogate pair.
"""

from __future__ import annotations

import traceback

__all__ = ["is_storable", "printable", "visible"]


def visible(text: str, keep: str = "\n\t") -> str:
    """Return a text with every character that cannot be printed written as JSON would escape it: `\\u001b`.

    :param keep: those that stay as they are.
    """
    if text.isprintable():
        return text
    return "".join([mark if mark.isprintable() or mark in keep else _escaped(mark) for mark in text])


def printable(error: Exception) -> Exception | None:
    """Return an error whose traceback a log file can hold: half of a surrogate pair would lose the whole line."""
    try:
        "".join(traceback.format_exception(error)).encode()
    except UnicodeEncodeError:
        return None
    return error


def is_storable(text: str) -> bool:
    """Whether every database can keep a text: no NUL, no half of a surrogate pair."""
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _escaped(mark: str) -> str:
    code = ord(mark)
    if code <= 0xFFFF:
        return f"\\u{code:04x}"
    code -= 0x10000
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
