"""Code that verifies what a webhook sends, with its own particulars in it; never with its secret.

The law of this room: whatever a stranger sends to a snippet is answered with a 4xx, and ends nothing; each says how it
is started, and stops there with one sentence if its secret is none. `tests/console/test_snippets.py` runs them all.
"""

from __future__ import annotations

import shlex
from urllib.parse import quote

from flask import current_app

from ..models import Subscription
from ..transport import ACCEPT_ENCODING, as_sent
from .formatting import path

__all__ = ["LANGUAGES", "snippets"]

LANGUAGES = (("python", "Python"), ("node", "Node.js"), ("go", "Go"), ("php", "PHP"), ("curl", "curl"))


def snippets(subscription: Subscription) -> list[tuple[str, str, str]]:
    """Return (name, title, code) for each language."""
    is_public = subscription.signature == "v1a"
    values = {
        # It stands in a comment, and must not leave it: what could do that is encoded, as it is on the wire.
        "path": quote(path(subscription.url).partition("?")[0], safe="/%:@!$&'()*+,;=~") or "/",
        "quoted_url": shlex.quote(as_sent(subscription.url)),
        "accept_encoding": ACCEPT_ENCODING,
        "is_public": is_public,
        "prefix": "whpk_" if is_public else "whsec_",
    }
    # Not `render_template`: the host's context processors ask the database, whose connection this page holds.
    find = current_app.jinja_env.get_template
    texts = {name: find(f"webhooks/snippets/{name}.txt").render(values) for name, _title in LANGUAGES}
    return [(name, title, texts[name].strip() + "\n") for name, title in LANGUAGES]
