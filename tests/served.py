"""The host app for separate processes: `FLASK_APP=tests.served:create_app`, configured by the environment."""

from __future__ import annotations

import faulthandler
import json
import os
import signal
from pathlib import Path

from flask import Flask

from tests.host import Invoice, db, make_host


def create_app() -> Flask:
    """The host app on the database and with the settings that `tests.processes` has put into the environment."""
    faulthandler.register(signal.SIGUSR1)  # for `Process.wait_until`
    settings = json.loads(os.environ["TEST_SETTINGS"])
    app = make_host(os.environ["TEST_DATABASE"], Path(os.environ["TEST_FOLDER"]), **settings)
    app.add_url_rule("/invoices", view_func=add, methods=["POST"])
    return app


def add() -> tuple[dict[str, str], int]:
    """Commit an invoice, as a view of the host's does."""
    db.session.add(Invoice(owner="1", number="A-1"))
    db.session.commit()
    return {"number": "A-1"}, 201
