"""The host app for processes of their own: `FLASK_APP=tests.served:create_app`, told by the environment what to be."""

from __future__ import annotations

import faulthandler
import json
import os
import signal
from pathlib import Path

from flask import Flask

from tests.host import make_host


def create_app() -> Flask:
    """The host app on the database and with the settings that `tests.processes` has put into the environment."""
    faulthandler.register(signal.SIGUSR1)  # for `Process.wait_until`
    settings = json.loads(os.environ["TEST_SETTINGS"])
    return make_host(os.environ["TEST_DATABASE"], Path(os.environ["TEST_FOLDER"]), **settings)
