"""An app of `tests.hosts.studio` with the extension, on a database that the test chooses."""

from __future__ import annotations

import typing as t
from pathlib import Path

import pytest

from flask_webhooks.state import AppState
from tests.capture.conftest import NOWHERE, capturing
from tests.hosts.studio import db
from tests.stage import subscribe

CATALOG = """
version: 1
defaults: {owner: studio}
channels:
  projects:
    model: tests.hosts.studio:Project
    events: [created, updated, deleted]
  tasks:
    model: tests.hosts.studio:Task
    schema: tests.hosts.studio:TaskSchema
    events:
      created:
      updated:
      deleted:
      done: {when: {status: done}}
    includes: [project]
"""

Enter = t.Callable[..., AppState]


@pytest.fixture
def enter(empty_database_url: str, tmp_path: Path) -> t.Iterator[Enter]:
    """Starts the studio with a catalogue and settings, in its context; by default with a subscription to everything."""
    opened = []

    def start(catalog: str = CATALOG, *, owner: str | None = "studio", **config: t.Any) -> AppState:
        house = capturing(db, catalog, empty_database_url, tmp_path, **config)
        state = house.__enter__()
        opened.append(house)
        if owner is not None:
            subscribe(state, NOWHERE, "*", owner=owner, includes=["changes"])
        return state

    yield start
    for house in opened:
        house.__exit__(None, None, None)
