"""Texts in the visitor's language: gettext if the host uses Flask-Babel, otherwise English.

The translations are in a domain of our own, `webhooks`, inside the package, so they never mix with the host's.

The text of an error is the sentence of its code. The English of `errors` is also written for callers of the API: where
it speaks of JSON, `IN_A_FORM` has another wording for a form.
"""

from __future__ import annotations

import functools
import typing as t
from pathlib import Path

from flask import current_app, has_app_context

from ..errors import N_, SENTENCES, ErrorText, SubscriptionError

__all__ = ["IN_A_FORM", "_", "language", "ngettext", "sentence", "sentence_of"]

FOLDER = Path(__file__).resolve().parent.parent / "translations"


def _(text: str, **values: t.Any) -> str:
    """Return a text in the visitor's language, with `%(name)s` filled in."""
    domain = _domain()
    found = domain.gettext(text) if domain is not None else text
    return found % values if values else found


def ngettext(one: str, many: str, count: int, **values: t.Any) -> str:
    """Return the singular or plural form for a number, with `%(num)s` and other names filled in."""
    domain = _domain()
    if domain is not None:
        return str(domain.ngettext(one, many, count, **values))
    return (one if count == 1 else many) % {"num": count, **values}


def language() -> str:
    """Return the language of this page, for `<html lang>`."""
    if _domain() is None:
        return "en"
    from flask_babel import get_locale  # type: ignore[import-untyped, unused-ignore]

    # A host may offer languages that our catalogue lacks; `lang` has to name the one that the texts are in.
    locale = get_locale()
    known = {folder.name for folder in FOLDER.iterdir() if folder.is_dir()}
    return locale.language if locale is not None and locale.language in known else "en"


def _domain() -> t.Any:
    if not has_app_context() or "babel" not in current_app.extensions:
        return None
    return _load()


# Imported when it is needed: Flask-Babel is no dependency of ours.
@functools.cache
def _load() -> t.Any:
    from flask_babel import Domain  # type: ignore[import-untyped, unused-ignore]

    return Domain(translation_directories=[str(FOLDER)], domain="webhooks")


# ---- errors ----------------------------------------------------------------------------------------------


_HELD = N_("Deliveries are held. Choose whether to send or to discard them.")
IN_A_FORM: t.Final[t.Mapping[str, str]] = {
    "no_listeners": N_("Choose at least one event."),
    "unknown_schedule": N_(
        "Give at most %(count)s waits in seconds, each from 0 to %(most)s, such as 5, 300, 3600."
    ),
    "number_range": N_("Give a number from %(least)s to %(most)s, or leave it empty."),
    "one_held": _HELD,
    "some_held": _HELD,
    "many_held": _HELD,
}
"""The wording for a form, by code; it may omit parameters of the English sentence."""


def sentence(text: str) -> str:
    """Return the text of an error in the visitor's language; one without a code, from the host, unchanged."""
    if not isinstance(text, ErrorText):
        return text
    english = IN_A_FORM.get(text.code) or SENTENCES[text.code].english
    return _(english) % text.params


def sentence_of(error: SubscriptionError) -> str:
    """Return the main text of an error in the visitor's language."""
    return sentence(error.args[0])
