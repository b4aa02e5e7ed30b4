"""The management API: JSON below `WEBHOOKS_URL_PREFIX/api`, for the customers of the host app.

The law of this door: every operation names the right it needs, and nothing is reached without a principal; what is
not the caller's own does not exist. Views get a `Call` and know nothing of Flask.

In the order of a request: `calls` authenticates, proves the origin, parses, opens a session of our own, and commits;
`replies` keeps the answer for an `Idempotency-Key`; `problems` turns what is raised into problem details.

===============  ==========================================
`operations`     what a route is; OpenAPI is made from it
`subscriptions`  list, make, read, change, remove
`secrets`        show and rotate
`trials`         the test request
`stats`          how a subscription performs
`replays`        many deliveries sent again
`messages`       what happened, and why somebody did not get it
`deliveries`     the log; retry and cancel
`catalog`        what there is to listen to
`spec`           OpenAPI; `documents` serves it
===============  ==========================================
"""

from __future__ import annotations

from flask import Blueprint

from . import catalog, deliveries, documents, messages, replays, secrets, stats, subscriptions, trials
from .calls import view_of
from .operations import OPERATIONS, paths
from .problems import not_allowed, unknown

__all__ = ["make_blueprint"]

_ROOMS = (
    subscriptions,
    secrets,
    trials,
    stats,
    replays,
    messages,
    deliveries,
    catalog,
    documents,
)  # importing them fills OPERATIONS
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "TRACE")


def make_blueprint() -> Blueprint:
    """Return the blueprint; a new one for each app."""
    blueprint = Blueprint("webhooks", __name__, template_folder="../templates")
    for operation in OPERATIONS:
        blueprint.add_url_rule(
            f"/api{operation.path}", operation.name, view_of(operation), methods=[operation.method]
        )
    for path, allowed in paths().items():
        others = [method for method in METHODS if method not in allowed]
        blueprint.add_url_rule(
            f"/api{path}",
            f"not_allowed_{path}".replace(".", "_"),
            not_allowed(allowed),
            methods=others,
            provide_automatic_options=False,
        )
    for path in ("/api", "/api/", "/api/<path:path>"):
        blueprint.add_url_rule(path, "unknown", unknown, methods=METHODS)
    return blueprint
