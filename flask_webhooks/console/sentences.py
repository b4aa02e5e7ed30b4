"""The text of an error for a visitor: the sentence of its code, in the visitor's language and worded for a form.

The English of `errors` is also written for callers of the API. Where it speaks of JSON, this module has another wording
for a form, by code. A text without a code, raised by the host's own code, is shown unchanged.
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
"""The wording for a form, by code; it need not use all parameters."""


def sentence(text: str) -> str:
    """Return the text of an error in the visitor's language."""
    if not isinstance(text, ErrorText):
        return text
    english = IN_A_FORM.get(text.code) or SENTENCES[text.code].english
    return _(english) % text.params


def sentence_of(error: SubscriptionError) -> str:
    """Return the main text of an error in the visitor's language."""
    return sentence(error.args[0])
