"""Receiver code in several languages that verifies a webhook's requests: with its path and scheme, never its secret.

The law of this room: a snippet answers any malformed or forged request with a 4xx, and goes on running. It says how to
start it, and exits at start with one sentence if its secret is malformed. `tests/console/test_snippets.py` runs them
all.
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
        # The path goes into a comment of the code: characters that could end the comment are percent-encoded.
        "path": quote(path(subscription.url).partition("?")[0], safe="/%:@!$&'()*+,;=~") or "/",
        "quoted_url": shlex.quote(as_sent(subscription.url)),
        "accept_encoding": ACCEPT_ENCODING,
        "is_public": is_public,
        "prefix": "whpk_" if is_public else "whsec_",
    }
    # Not `render_template`: the host's context processors may query the database while this page holds a connection.
    find = current_app.jinja_env.get_template
    texts = {name: find(f"webhooks/snippets/{name}.txt").render(values) for name, _title in LANGUAGES}
    return [(name, title, texts[name].strip() + "\n") for name, title in LANGUAGES]
