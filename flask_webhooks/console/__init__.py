"""The developer console: HTML below `WEBHOOKS_URL_PREFIX/console`, for the host's customers and for operators.

The law of this door: every page names the right it needs, and nothing is reached without a principal; what is not the
caller's own does not exist. Every POST carries a token and answers with a redirect, so that all of it works without
JavaScript; htmx asks for the same pages and gets the part that changed. No inline script, style or handler.

In the order of a request: `rendering` authenticates, checks the token, opens a session of our own and commits; a page
function returns a `Page`, a `Redirect` or a `Raw`.

=============  ==============================================================================================
`pages`        what a page is; the URL rules are made from it
`rendering`    from a request to a page function, and to a response; `template_values`, what every template may use
`sign_in`      the way to the console, and to the host's sign-in
`csrf`         the token of every form
`i18n`         gettext, where Flask-Babel is there
`sentences`    what is wrong, in the visitor's language and in words of a form
`formatting`   how instants, durations, sizes and states are written
`colours`      the host's accent colour, made legible
`webhooks`     list, switch, remove
`form_pages`   new and edit; `form` reads what was sent, `event_picker` offers events
`first_steps`  the steps after a webhook is made
`once`         a form makes its thing once, a secret is shown once
`webhook`      one webhook: health, charts; `secrets`, `test_send`, `snippets`
`deliveries`   deliveries, live; `delivery`, one of them with every attempt; `curl`, an attempt as a command
`catalogue`    channels and events
`replays`      what is sent again
`operator`     for operators
=============  ==============================================================================================
"""

from __future__ import annotations

from werkzeug.exceptions import HTTPException

from ..web import Door
from . import (
    catalogue,
    deliveries,
    delivery,
    first_steps,
    form_pages,
    operator,
    replays,
    secrets,
    test_send,
    webhook,
    webhooks,
)
from .formatting import add_filters
from .pages import PAGES
from .rendering import of_http, secure, unknown, view_of
from .sign_in import lead_here
from .template_values import accent, template_values

__all__ = ["make_blueprint"]

_ROOMS = (
    webhooks,
    form_pages,
    first_steps,
    webhook,
    secrets,
    test_send,
    deliveries,
    delivery,
    replays,
    catalogue,
    operator,
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
    blueprint.context_processor(template_values)
    blueprint.after_request(secure)
    blueprint.register_error_handler(HTTPException, of_http)
    blueprint.record(lead_here)
    add_filters(blueprint)
    return blueprint
