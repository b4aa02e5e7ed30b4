"""The values that every template of the console may use, and the style sheet with the host's accent colour."""

from __future__ import annotations

import functools
import hashlib
import typing as t
from datetime import UTC, datetime
from pathlib import Path

from flask import Response, g, request, url_for

from ..principal import Principal
from ..state import current_webhooks
from ..web import current_state
from . import colours, csrf, sign_in
from .i18n import _, language, ngettext

__all__ = ["accent", "asset", "template_values"]

STATIC = Path(__file__).resolve().parent.parent / "static"


def template_values() -> dict[str, t.Any]:
    """Return the values by their names."""
    state = current_state()
    principal: Principal | None = g.get("webhooks_principal")
    return {
        "_": _,
        "ngettext": ngettext,
        "language": language(),
        "console": state.settings.console,
        "base_template": state.settings.console.base or "webhooks/base.html",
        "principal": principal,
        "settings": state.settings,
        "is_developing": state.is_developing,
        "token_field": csrf.FIELD,
        "token": functools.partial(csrf.make, state, principal) if principal is not None else str,
        "asset": asset,
        "notice": _notices().get(request.args.get("notice", "")),
        "clock": functools.partial(datetime.now, UTC),
        "is_idle": g.get("webhooks_is_idle", False),
        "has_sign_in": principal is None and sign_in.has_sign_in(state),
        "may": principal.may if principal is not None else (lambda right: False),
    }


def asset(name: str) -> str:
    """Return the URL of a static file of ours, with a digest of the file, so that browsers may cache it for long."""
    return url_for(".static", filename=name, v=_digest(name))


@functools.cache
def _digest(name: str) -> str:
    return hashlib.sha256((STATIC / name).read_bytes()).hexdigest()[:10]


def accent() -> Response:
    """Return a style sheet with the host's accent colour; empty without one."""
    css = colours.style_sheet(current_webhooks.settings.console.accent)
    return Response(css, mimetype="text/css", headers={"Cache-Control": "max-age=300"})


def _notices() -> dict[str, str]:
    """Return the notices by code: a URL can choose one of these texts, but never contain a text of its own."""
    return {
        "created": _("The webhook is set up. Copy its secret now, then send a test."),
        "saved": _("Saved."),
        "removed": _("The webhook has been removed. Its log stays until it is purged."),
        "on": _("Switched on. It starts with a clean record."),
        "off": _("Switched off. New events are held for you."),
        "rotated": _(
            "From now on requests are signed with the new secret. The old one stays valid until its overlap ends."
        ),
        "retried": _("The delivery is due now."),
        "cancelled": _("Cancelled."),
        "replaying": _("The replay has started."),
        "repaired": _("All of these are repaired and on their way."),
        "still_broken": _("Some are still broken: see their errors."),
        "stopped": _("The replay has been stopped. Deliveries that were already queued are still sent."),
    }
