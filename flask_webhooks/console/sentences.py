"""What is wrong, as a visitor reads it: the sentence of an error's code, in their language and in words of a form.

The English of `errors` is written for callers of the API too. Where it speaks of JSON, a form says the same otherwise;
that is written here, by code. Text without a code, which the host's own code has raised, is shown as it is.
"""

from __future__ import annotations

import typing as t

from ..errors import SENTENCES, ErrorText, SubscriptionError
from .i18n import N_, _

__all__ = ["IN_A_FORM", "sentence", "sentence_of"]

_HELD = N_("Deliveries are held. Choose what becomes of them.")
IN_A_FORM: t.Final[t.Mapping[str, str]] = {
    "no_listeners": N_("Choose at least one event."),
    "unknown_schedule": N_(
        "Give at most %(count)s waits in seconds, each from 0 to %(most)s, such as 5, 300, 3600."
    ),
    "rate_limit_range": N_(
        "Give a number of requests a second, from %(least)s to %(most)s, or leave it empty."
    ),
    "one_held": _HELD,
    "some_held": _HELD,
    "many_held": _HELD,
}
"""Code to what is said where there is a form; it may leave out parameters."""


def sentence(text: str) -> str:
    """Return what a visitor reads for a text of an error."""
    if not isinstance(text, ErrorText):
        return text
    english = IN_A_FORM.get(text.code) or SENTENCES[text.code].english
    return _(english) % text.params


def sentence_of(error: SubscriptionError) -> str:
    """Return what a visitor reads for an error as a whole."""
    return sentence(error.args[0])
