"""A small accounting product, built on Flask-Webhooks the way a customer of the extension would.

==============  ============================================================================================
`webhooks`      the integration, on one page
`models`        31 kinds of record, and the tables around them
`schemas`       how they look in JSON, to the API and to receivers of webhooks
`channels`      the model and the schema of each channel
`api`           the JSON API, with `crud` (find, write) and `problems` (errors)
`actions`       send, pay, void
`auth`          session cookies and bearer tokens
`pages`         the home page
`database`      SQLite, made to keep its promises
`seed`          creates two demonstration businesses
`simulation`    does business, one step at a time
`commands`      `flask --app example_app seed`, `token`, `trade`
==============  ============================================================================================
"""

from __future__ import annotations

import os
import typing as t
from collections.abc import Mapping
from pathlib import Path

from flask import Flask, Response

from . import api, auth, commands, pages
from .database import set_up_sqlite
from .models import db
from .webhooks import webhooks

HOME = Path(__file__).resolve().parent.parent
CATALOG = HOME / "catalog" / "accounting.yaml"


def create_app(config: Mapping[str, t.Any] | None = None) -> Flask:
    """Make the app.

    :param config: goes over the environment (``EXAMPLE_SECRET_KEY``, ``EXAMPLE_WEBHOOKS_ENVIRONMENT``, ...),
        which goes over the defaults here.
    """
    app = Flask(__name__, instance_path=os.environ.get("EXAMPLE_INSTANCE_PATH", str(HOME / "instance")))
    app.config.from_mapping(
        SECRET_KEY="only for trying out: set EXAMPLE_SECRET_KEY",
        SQLALCHEMY_DATABASE_URI="sqlite:///example.sqlite",
        SESSION_COOKIE_SAMESITE="Lax",
        WEBHOOKS_CATALOG=str(CATALOG),
    )
    app.config.from_prefixed_env("EXAMPLE")
    app.config.from_mapping(config or {})

    db.init_app(app)
    set_up_sqlite(app)
    webhooks.init_app(app, db)

    for blueprint in (auth.bp, api.bp, pages.bp):
        app.register_blueprint(blueprint)
    commands.init_app(app)
    app.after_request(_add_security_headers)
    return app


def _add_security_headers(response: Response) -> Response:
    response.headers.setdefault("Content-Security-Policy", "default-src 'self'")
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Referrer-Policy", "same-origin")
    return response
