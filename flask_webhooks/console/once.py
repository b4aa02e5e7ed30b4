"""What happens once in the console: a form makes its thing once, and a secret is shown once.

A form that makes something has a key of its own, so that a double click or a reload of the answer makes it once. The
key counts together with the fields: a form that was changed and sent again is a new one.

The POST that makes a secret redirects to the page that shows it, so that a reload makes nothing. The address carries a
token that cannot be guessed, and works once: a reload, the history of the browser or a log of addresses does not show
the secret again.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import typing as t
from datetime import timedelta

from flask import request

from ..web import idempotency
from . import csrf

if t.TYPE_CHECKING:
    from .pages import PageContext

__all__ = ["FORM_KEY", "SHOWN_ONCE", "form_key", "made_by_form", "show_once", "shown_once"]

FORM_KEY = "form_key"
"""The field of a form's key."""
LONGEST_KEY = 64
"""The most characters of a key that a page repeats; ours have fewer."""
SHOWN_ONCE = "once"
"""What the token is called in an address."""
LIFE = timedelta(minutes=10)
"""A browser follows a redirect at once."""


def form_key(visit: PageContext) -> str:
    """Return the key of the form that is shown: a new one, or that of the form which comes back with its mistakes.

    It cannot be guessed, because a repeated form shows a secret.
    """
    return visit.form.get(FORM_KEY, "")[:LONGEST_KEY] or secrets.token_urlsafe(18)


def made_by_form(visit: PageContext) -> idempotency.Slot | None:
    """Return the place of what this form makes; None for a form without a key."""
    if not visit.form.get(FORM_KEY):
        return None
    filled = sorted((name, value) for name, value in visit.form.items(multi=True) if name != csrf.FIELD)
    digest = hashlib.sha256(json.dumps(filled).encode()).hexdigest()
    return idempotency.begin(visit, f"console:{digest}", digest, is_limited=False)


def show_once(visit: PageContext, made: t.Sequence[str]) -> str:
    """Keep the ids of what may be shown once, in the visit's transaction; return the token for the address."""
    token = secrets.token_urlsafe(18)
    idempotency.keep(visit, _key(token), made)
    return token


def shown_once(visit: PageContext) -> t.Sequence[str] | None:
    """Return what this address may show, and take it away; None if there is nothing, or no more.

    A browser that only prefetches the page takes nothing away.
    """
    token = visit.query.get(SHOWN_ONCE, "")
    if not token or request.method != "GET" or "prefetch" in request.headers.get("Sec-Purpose", ""):
        return None
    return idempotency.take(visit, _key(token), LIFE)


def _key(token: str) -> str:
    return "console-once:" + hashlib.sha256(token.encode()).hexdigest()
