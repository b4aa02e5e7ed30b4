"""The developer console: HTML below `WEBHOOKS_URL_PREFIX/console`, for the host's customers and for operators.

The law of this door: every page declares the right that it needs, and no page is shown without a principal; the rows of
other owners are answered as if they did not exist. Every POST carries a token and answers with a redirect, so all pages
work without JavaScript; htmx requests the same pages and gets the part that changed. There is no inline script, style
or event handler.

In the order of a request: `rendering` authenticates, checks the token, opens a session of our own and commits; a page
function returns a `Page`, a `Redirect` or a `Raw`, which `rendering` turns into a response.

=============  ==============================================================================================
`pages`        the definition of a page, from which the URL rules are made
`rendering`    calls a page function for a request and renders its result; `template_values`, the globals of templates
`sign_in`      redirects to the console, and to the host's sign-in
`csrf`         the token of every form
`i18n`         texts and errors in the visitor's language, if the host uses Flask-Babel
`formatting`   how instants, durations, sizes and states are written
`colours`      the host's accent colour, made legible
`webhooks`     the list; one webhook with its health; switch, remove
`charts`       the charts of a webhook
`form_pages`   new and edit; `form` reads the submitted fields, `event_picker` offers events
`first_steps`  the steps after a webhook is created
`once`         submits a form once, shows a secret once
`secrets`      shows and rotates the secret; `test_send`, sends a test
`snippets`     code to copy: receivers, an attempt as a curl command
`deliveries`   deliveries, live; `delivery`, one of them with every attempt
`catalogue`    channels and events; `event_types`, when an event happens, and an example of its body
`replays`      deliveries sent again
`operator`     the page for operators
=============  ==============================================================================================
"""

from __future__ import annotations

from werkzeug.exceptions import HTTPException

from ..web import Door
from . import (
    catalogue,
    charts,
    deliveries,
    delivery,
    first_steps,
    form_pages,
    operator,
    replays,
    secrets,
    test_send,
    webhooks,
)
from .formatting import add_filters
from .pages import PAGES
from .rendering import of_http, secure, unknown, view_of
from .sign_in import redirect_to_console
from .template_values import accent, template_values

__all__ = ["make_blueprint"]

# Importing these modules fills PAGES.
_MODULES = (
    webhooks,
    charts,
    form_pages,
    first_steps,
    secrets,
    test_send,
    deliveries,
    delivery,
    replays,
    catalogue,
    operator,
)


METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")


def make_blueprint(name: str, host: str | None) -> Door:
    """Return a new blueprint for an app. Pages link to each other without its name (`.index`)."""
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
    blueprint.record(redirect_to_console)
    add_filters(blueprint)
    return blueprint
