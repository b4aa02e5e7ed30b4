"""The management API: JSON below `WEBHOOKS_URL_PREFIX/api`, for the customers of the host app.

The law of this door: every operation names the right it needs, and nothing is reached without a principal; what is
not the caller's own does not exist. Views get a `Call` and know nothing of Flask.

In the order of a request: `views` authenticates, checks the origin (`security`), parses, opens a session of our own and
commits; `paging` cuts lists into pages; `problems` makes problem details of what is raised, also for paths and methods
that do not exist. What the console does alike is in `web`.

===============  =======================================================================
`operations`     what a route is; OpenAPI is made from it
`subscriptions`  list, make, read, change, remove
`secrets`        show and rotate
`test_send`      the test request
`stats`          how a subscription performs
`replays`        many deliveries sent again
`messages`       what happened, and why a subscription did not get it
`deliveries`     the log; retry and cancel
`catalog`        what there is to listen to
`spec`           OpenAPI, with `examples`, `links` and `security`; `documents` serves it
===============  =======================================================================
"""

from __future__ import annotations

from flask import Response
from flask.blueprints import BlueprintSetupState
from werkzeug.exceptions import HTTPException
from werkzeug.routing import Rule

from ..web import Door, host_of, protect
from . import catalog, deliveries, documents, messages, replays, secrets, stats, subscriptions, test_send
from .operations import OPERATIONS, paths
from .problems import not_allowed, of_http, unknown
from .views import view_of

__all__ = ["make_blueprint"]

# Importing them fills OPERATIONS.
_ROOMS = (
    subscriptions,
    secrets,
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
    """The methods of a rule that fits all of them.

    Werkzeug takes a rule without methods for that too, but what shows a host its rules expects a set of names.
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
"""Of the page for people: it has one style sheet, and nothing else."""


def _secure(response: Response) -> Response:
    """Let no browser guess that what a receiver has answered is a page, nor run anything in the one that there is."""
    if response.mimetype == "text/html":
        protect(response, POLICY)
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    return response


def _add_the_rest(setup: BlueprintSetupState) -> None:
    """Answer for every other method, whatever its name, and every other path: what the rules before do not fit."""
    views = {path: not_allowed(allowed) for path, allowed in paths().items()}
    views |= {"": unknown, "/": unknown, "/<path:path>": unknown}
    for number, (path, view) in enumerate(views.items()):
        endpoint = f"{setup.blueprint.name}.other_{number}"
        rule = Rule(f"{setup.url_prefix or ''}/api{path}", endpoint=endpoint, host=host_of(setup))
        rule.methods = _Every(METHODS)
        setup.app.url_map.add(rule)
        setup.app.view_functions[endpoint] = view
