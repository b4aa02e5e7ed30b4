"""The management API: JSON below `WEBHOOKS_URL_PREFIX/api`, for the customers of the host app.

The law of this door: every operation declares the right that it needs, and no operation runs without a principal; the
rows of other owners are answered as if they did not exist. Views get a `Call` and do not use Flask.

In the order of a request: `views` authenticates, checks the origin (`security`), parses, opens a session of our own and
commits; `paging` divides lists into pages; `problems` turns exceptions into problem details, also for paths and methods
that do not exist. What the API shares with the console is in `web`.

===============  =========================================================================
`schemas`        the JSON of requests and answers
`operations`     the definition of a route, from which URL rule, parsing and OpenAPI are made
`subscriptions`  list, create, read, change, remove; show and rotate secrets
`test_send`      the test request
`stats`          how a subscription performs
`replays`        many deliveries sent again
`messages`       recorded events, and why a subscription did not get one
`deliveries`     the log; retry and cancel
`catalog`        channels and events to subscribe to
`spec`           OpenAPI, with `spec_operations`, `examples` and `security`; `documents` serves it
===============  =========================================================================
"""

from __future__ import annotations

from flask import Response
from flask.blueprints import BlueprintSetupState
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Rule

from ..web import Door, host_of, protect
from . import catalog, deliveries, documents, messages, replays, stats, subscriptions, test_send
from .operations import OPERATIONS, paths
from .problems import not_allowed, of_http, unknown
from .views import view_of

__all__ = ["make_blueprint"]

# Importing these modules fills OPERATIONS, in the order of the documentation.
_MODULES = (
    subscriptions,
    test_send,
    stats,
    replays,
    messages,
    deliveries,
    catalog,
    documents,
)


METHODS = ("DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE")


class _Every(set[str]):
    """The methods of a rule that matches any method, also an unknown one.

    For Werkzeug a rule without methods would do, but tools that list the rules of an app expect a set of names.
    """

    def __contains__(self, method: object) -> bool:
        return True


def make_blueprint(name: str, host: str | None) -> Door:
    """Return the blueprint; a new one for each app."""
    blueprint = Door(name, __name__, host=host, template_folder="../templates")
    for operation in OPERATIONS:
        blueprint.add_url_rule(
            f"/api{operation.path}",
            operation.name,
            view_of(operation),
            methods=[operation.method],
            provide_automatic_options=False,
        )
    blueprint.record(_add_the_rest)
    blueprint.register_error_handler(HTTPException, of_http)
    blueprint.after_request(_secure)
    return blueprint


POLICY = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
"""Content-Security-Policy of the HTML page of the documentation, which loads only a style sheet of ours."""


def _secure(response: Response) -> Response:
    """Keep browsers from treating a receiver's response as a page, and from running anything in our own page."""
    if response.mimetype == "text/html":
        protect(response, POLICY)
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    return response


def _add_the_rest(setup: BlueprintSetupState) -> None:
    """Add rules for all other methods and paths below `/api`, so that they are answered with problem details too."""
    views = {path: not_allowed(allowed) for path, allowed in paths().items()}
    views |= {"": unknown, "/": unknown, "/<path:path>": unknown}
    for number, (path, view) in enumerate(views.items()):
        endpoint = f"{setup.blueprint.name}.other_{number}"
        # Not `add_url_rule`: it would turn the methods into a plain set, which knows no unknown method.
        rule = Rule(f"{setup.url_prefix or ''}/api{path}", endpoint=endpoint, host=host_of(setup))
        rule.methods = _Every(METHODS)
        setup.app.url_map.add(rule)
        setup.app.view_functions[endpoint] = view
