"""Code that verifies what a webhook sends, with its own particulars in it; never with its secret."""

from __future__ import annotations

from urllib.parse import quote

from flask import current_app

from ..models import Subscription
from .looks import path

__all__ = ["LANGUAGES", "snippets"]

LANGUAGES = (("python", "Python"), ("node", "Node.js"), ("go", "Go"), ("php", "PHP"), ("curl", "curl"))


def snippets(subscription: Subscription) -> list[tuple[str, str, str]]:
    """Return (name, title, code) for each language."""
    values = {
        "subscription": subscription,
        # It stands inside quotation marks of each language: what could end those is encoded, as it is on the wire.
        "path": quote(path(subscription.url).partition("?")[0], safe="/%:@!$&'()*+,;=~") or "/",
        "is_public": subscription.signature == "v1a",
    }
    # Not `render_template`: the host's context processors ask the database, whose connection this page holds.
    find = current_app.jinja_env.get_template
    texts = {name: find(f"webhooks/snippets/{name}.txt").render(values) for name, _title in LANGUAGES}
    return [(name, title, texts[name].strip() + "\n") for name, title in LANGUAGES]
