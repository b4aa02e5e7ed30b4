"""The developer console: HTML below `WEBHOOKS_URL_PREFIX/console`, for the host's customers and for operators.

The law of this door: every page names the right it needs, and nothing is reached without a principal; what is not the
caller's own does not exist. Every POST carries a token and answers with a redirect, so that all of it works without
JavaScript; htmx asks for the same pages and gets the part that changed. No inline script, style or handler.

In the order of a request: `visits` authenticates, checks the token, opens a session of our own and commits; a page
function returns a `Page`, a `Redirect` or a `Raw`.

==============  ==================================================================
`pages`         what a page is; the URL rules are made from it
`visits`        from a request to a page function, and to a response
`arriving`      the way to the console, and to the host's sign-in
`tokens`        the token of every form
`words`         gettext, where Flask-Babel is there
`faults`        what is wrong with a form, in the visitor's language
`looks`         how instants, durations, sizes and states are written
`colours`       the host's accent colour, made legible
`webhooks`      list, switch, remove
`editing`       new and edit; `forms` reads what was sent, `picking` offers events, `repeats` does it once
`setting_up`    the steps after a webhook is made; `once` shows its secret on one page
`health`        one webhook: health, charts; `secrets`, `trials`, `snippets`
`log`           deliveries, live; `delivery`, one of them with every attempt; `curl`, an attempt as a command
`catalogue`     channels and events
`replays`       what is sent again
`operating`     for operators
==============  ==================================================================
"""

from __future__ import annotations

from werkzeug.exceptions import HTTPException

from ..csrf import exempt
from ..mounting import Door
from . import (
    catalogue,
    delivery,
    editing,
    health,
    log,
    operating,
    replays,
    secrets,
    setting_up,
    trials,
    webhooks,
)
from .arriving import lead_here
from .looks import add_filters
from .pages import PAGES
from .visits import accent, context, of_http, secure, unknown, view_of

__all__ = ["make_blueprint"]

_ROOMS = (
    webhooks,
    editing,
    setting_up,
    health,
    secrets,
    trials,
    log,
    delivery,
    replays,
    catalogue,
    operating,
)
"""Importing them fills PAGES."""


METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def make_blueprint(name: str, host: str | None) -> Door:
    """Return the blueprint; a new one for each app. Pages name each other without it (`.index`)."""
    blueprint = Door(
        name,
        __name__,
        host=host,
        template_folder="../templates",
        static_folder="../static",
        static_url_path="/static",
    )
    for page in PAGES:
        blueprint.add_url_rule(page.path, page.name, view_of(page), methods=[page.method])
    blueprint.add_url_rule("/accent.css", "accent", accent)
    blueprint.add_url_rule("/<path:path>", "unknown", unknown, methods=METHODS)
    blueprint.context_processor(context)
    blueprint.after_request(secure)
    blueprint.register_error_handler(HTTPException, of_http)
    blueprint.record(lead_here)
    exempt(blueprint)
    add_filters(blueprint)
    return blueprint
