"""The management API: JSON below `WEBHOOKS_URL_PREFIX/api`, for the customers of the host app.

The law of this door: every operation declares the right that it needs, and no operation runs without a principal; the
rows of other owners are answered as if they did not exist. Views get a `Call` and do not use Flask.

In the order of a request: `views` authenticates, checks the origin (`security`), parses, opens a session of our own and
commits; `paging` cuts lists into pages; `problems` makes problem details of what is raised, also for paths and methods
that do not exist. What the console does alike is in `web`.

===============  =========================================================================
`operations`     the definition of a route, from which rule, parsing and OpenAPI are made
`subscriptions`  list, create, read, change, remove; show and rotate secrets
`test_send`      the test request
`stats`          how a subscription performs
`replays`        many deliveries sent again
`messages`       what happened, and why a subscription did not get it
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

# Importing these modules fills OPERATIONS.
_ROOMS = (
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
    """The methods of a rule that matches every method.

    Werkzeug accepts a rule without methods for that, but tools that list the rules of an app expect a set of names.
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
    """Let no browser guess that what a receiver has answered is a page, nor run anything in the one that there is."""
    if response.mimetype == "text/html":
        protect(response, POLICY)
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    return response


def _add_the_rest(setup: BlueprintSetupState) -> None:
    """Add rules for every other method and path below `/api`: they are answered with problem details too."""
    views = {path: not_allowed(allowed) for path, allowed in paths().items()}
    views |= {"": unknown, "/": unknown, "/<path:path>": unknown}
    for number, (path, view) in enumerate(views.items()):
        endpoint = f"{setup.blueprint.name}.other_{number}"
        rule = Rule(f"{setup.url_prefix or ''}/api{path}", endpoint=endpoint, host=host_of(setup))
        rule.methods = _Every(METHODS)
        setup.app.url_map.add(rule)
        setup.app.view_functions[endpoint] = view
