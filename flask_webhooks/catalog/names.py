"""Patterns of names, and suggestions for misspelt ones.

The patterns are plain ASCII without look-behind, so that Python and the ECMAScript regular expressions of an
editor read them alike. They are always matched against the whole text.
"""

from __future__ import annotations

import difflib
import re
import typing as t

from ..errors import ErrorText

NAME = r"[A-Za-z0-9_]{1,64}"
"""Channel, event, format."""
ATTRIBUTE = r"[A-Za-z_][A-Za-z0-9_]*"
"""A Python attribute: column, relationship, property."""
DOTTED = rf"{ATTRIBUTE}(\.{ATTRIBUTE})*"
"""Attributes, one after the other: `client.business_id`."""
IMPORT = rf"{DOTTED}:{DOTTED}"
"""`package.module:Name`."""
EVENT_TYPE = rf"{NAME}\.{NAME}"
"""`invoices.created`."""

RESERVED_CHANNEL = "webhooks"
"""`webhooks.test` is the event of the API's test request."""


def nearest(name: str, candidates: t.Iterable[str]) -> str | None:
    """Return the candidate that `name` was probably meant to be, or `None`.

    A different case, plural or separator comes first: `Invoice` finds `invoices`, `pay-run` finds `pay_run`.
    """
    known = list(candidates)
    folded: dict[str, str] = {}
    for candidate in known:
        folded.setdefault(_fold(candidate), candidate)
    if (same := folded.get(_fold(name))) is not None:
        return same
    close = difflib.get_close_matches(_fold(name), list(folded), n=1, cutoff=0.6)
    return folded[close[0]] if close else None


_MANY = (
    "people",
    "children",
    "data",
    "metadata",
    "media",
    "info",
    "information",
    "staff",
    "equipment",
    "feedback",
)
_OTHERWISE = {"person": "people", "child": "children"}


def plural(name: str) -> str:
    """Return what many of them are called: `pay_run` to `pay_runs`. English, and no more than a good guess."""
    before, mark, word = name.rpartition("_")
    if not word[-1:].islower() or word.lower() in _MANY:
        return name
    if (other := _OTHERWISE.get(word.lower())) is not None:
        return before + mark + (other.capitalize() if word[0].isupper() else other)
    if word.endswith("s") and not word.endswith(("ss", "us")):
        return name
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return name[:-1] + "ies"
    return name + ("es" if word.endswith(("s", "x", "ch", "sh")) else "s")


def singular(title: str) -> str:
    """Return one of them: `Business Loans` to `Business Loan`. English, and no more than a good guess."""
    if title.endswith("ies") and len(title) > 4:
        return title[:-3] + "y"
    if title.endswith(("sses", "xes", "ches", "shes", "tuses", "nuses", "ruses", "puses")):
        return title[:-2]
    return title[:-1] if title.endswith("s") and not title.endswith(("ss", "us", "is")) else title


def _fold(name: str) -> str:
    return re.sub(r"[^a-z0-9.]", "", name.casefold()).rstrip("s") or name


def did_you_mean(name: str, candidates: t.Iterable[str], otherwise: str = "") -> str:
    """Return `Did you mean "x"?`, or `otherwise` where nothing is near."""
    return suggestion(nearest(name, candidates), otherwise)


def suggestion(meant: str | None, otherwise: str = "", *, mark: str = '"') -> str:
    """Return `Did you mean "x"?`, or `otherwise` if no candidate is similar.

    :param mark: what stands on both sides of the name.
    """
    return f"Did you mean {mark}{meant}{mark}?" if meant is not None else otherwise


def listed(names: t.Iterable[str]) -> str:
    """Return names for a sentence: `a, b or c`."""
    every = list(names)
    return every[0] if len(every) == 1 else f"{', '.join(every[:-1])} or {every[-1]}" if every else "nothing"


def unknown_event(name: str, near: str | None) -> ErrorText:
    """Return what is said of an event that the catalogue has not.

    :param near: the one that was probably meant.
    """
    shown = repr(name)
    return (
        ErrorText("misspelt_event", name=shown, near=near) if near else ErrorText("unknown_event", name=shown)
    )


def unknown_channel(name: str, near: str | None) -> ErrorText:
    """Return what is said of a channel that the catalogue has not; see `unknown_event`."""
    shown = repr(name)
    if near:
        return ErrorText("misspelt_channel", name=shown, near=near)
    return ErrorText("unknown_channel", name=shown)
