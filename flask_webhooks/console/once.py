"""Two things that happen once: a form creates one webhook however often it is submitted, and a secret is shown once.

A form that creates something has a key of its own, so that a double click or a reload of the answer creates it once.
The digest of the fields belongs to the key: a form that was changed and sent again creates another webhook.

The POST that makes a secret redirects to the page that shows it, so that a reload makes no further secret. The URL has
a random token that works once: with a reload, the browser's history or a log of URLs the secret is not shown again.
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
"""Name of the form field with the key."""
LONGEST_KEY = 64
"""Characters of a key that a refused form repeats; ours have fewer."""
SHOWN_ONCE = "once"
"""Name of the URL parameter with the token."""
LIFE = timedelta(minutes=10)
"""How long a token works: a browser follows the redirect at once, so minutes are ample."""


def form_key(context: PageContext) -> str:
    """Return the key of a form: a new one, or the submitted one if the form is shown again with its errors.

    It is random, because the form with a known key is answered with the secret of the webhook that it created.
    """
    return context.form.get(FORM_KEY, "")[:LONGEST_KEY] or secrets.token_urlsafe(18)


def made_by_form(context: PageContext) -> idempotency.Slot | None:
    """Return the idempotency slot of this form; None for a form without a key."""
    if not context.form.get(FORM_KEY):
        return None
    # Without the CSRF token, which differs each time the same form is shown.
    filled = sorted((name, value) for name, value in context.form.items(multi=True) if name != csrf.FIELD)
    digest = hashlib.sha256(json.dumps(filled).encode()).hexdigest()
    return idempotency.begin(context, f"console:{digest}", digest, is_limited=False)


def show_once(context: PageContext, made: t.Sequence[str]) -> str:
    """Store ids that a page may show once, in the transaction of the request; return the token for its URL."""
    token = secrets.token_urlsafe(18)
    idempotency.keep(context, _key(token), made)
    return token


def shown_once(context: PageContext) -> t.Sequence[str] | None:
    """Return the ids that this URL may show, and delete them; None if there are none, or were shown already.

    A prefetch of the browser deletes nothing: the visitor may open the page later.
    """
    token = context.query.get(SHOWN_ONCE, "")
    if not token or request.method != "GET" or "prefetch" in request.headers.get("Sec-Purpose", ""):
        return None
    return idempotency.take(context, _key(token), LIFE)


def _key(token: str) -> str:
    return "console-once:" + hashlib.sha256(token.encode()).hexdigest()
