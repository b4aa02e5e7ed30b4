"""Inside the tests of a public app: puts Flask-Webhooks into it, without a change in a file of theirs.

`bench.hosts` runs `pytest -p guest` with this folder on the path. What to do stands in the environment variable
`WEBHOOKS_GUEST`, a JSON object, and what was seen is written to the file that it names.

The host's factory is wrapped as soon as its module has been executed, before anybody can take it from there. The tables
and the subscription are looked for when a test begins its first transaction, and after `create_all()`: a suite may make
its database how and when it likes, and empty it in between.
"""

from __future__ import annotations

import functools
import importlib
import importlib.abc
import importlib.util
import json
import logging
import os
import re
import sys
import time
import typing as t
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

ORDER: dict[str, t.Any] = json.loads(os.environ["WEBHOOKS_GUEST"])
"""`mode`, `factory`, `db`, `models`, `catalog`, `config`, `report`."""
OWNER = "guest"
"""Of all rows: what a subscription to everything hears must not hang on how well owners are guessed."""
IS_INSTALLED = ORDER["mode"] != "before"
IS_SUBSCRIBED = ORDER["mode"] in ("star", "everything")
BEGAN = time.process_time()


class Seen:
    """What this run has to tell."""

    def __init__(self) -> None:
        self.outcomes: dict[str, str] = {}
        self.reasons: dict[str, str] = {}
        self.messages = 0
        self.broken: Counter[str] = Counter()
        self.warnings: Counter[str] = Counter()
        self.apps = 0
        self.is_unsure = True
        """Whether the subscription has to be looked for."""

    def write(self) -> None:
        """Give the report to whoever has started us."""
        found = {
            "outcomes": self.outcomes,
            "reasons": self.reasons,
            "messages": self.messages,
            "broken": dict(self.broken.most_common(50)),
            "warnings": dict(self.warnings.most_common(50)),
            "apps": self.apps,
            "cpu_seconds": round(time.process_time() - BEGAN, 2),
        }
        Path(ORDER["report"]).write_text(json.dumps(found, indent=1), encoding="utf-8")


seen = Seen()


# ---- pytest ----------------------------------------------------------------------------------------------


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the worst that happened to a test."""
    worse = ("failed", "error")
    if report.failed:
        seen.outcomes[report.nodeid] = "failed" if report.when == "call" else "error"
        seen.reasons[report.nodeid] = _last_line(report.longreprtext)
    elif report.when == "call" or report.skipped:
        if seen.outcomes.get(report.nodeid) not in worse:
            seen.outcomes[report.nodeid] = "skipped" if report.skipped else "passed"


def _last_line(text: str) -> str:
    lines = [line[1:].strip() for line in text.splitlines() if line.startswith("E ")]
    return (lines[0] if lines else text.strip().splitlines()[-1] if text.strip() else "")[:400]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """A suite may have emptied its database since the last test."""
    seen.is_unsure = True


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    """Fixtures may have made, or emptied, a database."""
    seen.is_unsure = True


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish() -> None:
    """The end of the run."""
    seen.write()


# ---- the factory -----------------------------------------------------------------------------------------


class Door(importlib.abc.MetaPathFinder):
    """Wraps the factory when its module is imported."""

    def __init__(self, module: str, name: str) -> None:
        self._module, self._name = module, name

    def find_spec(self, name: str, path: t.Any, target: t.Any = None) -> t.Any:
        """Find the one module as everybody else would, and let it be executed by us."""
        if name != self._module:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        loader: t.Any = spec.loader
        execute = loader.exec_module

        def exec_module(module: t.Any) -> None:
            execute(module)
            setattr(module, self._name, _entered(getattr(module, self._name)))

        loader.exec_module = exec_module
        return spec


def _entered(factory: t.Callable[..., t.Any]) -> t.Callable[..., t.Any]:
    @functools.wraps(factory)
    def make(*args: t.Any, **kwargs: t.Any) -> t.Any:
        from flask import Flask

        made = factory(*args, **kwargs)
        app = next(each for each in (made, *args) if isinstance(each, Flask))
        enter(app)
        return made

    return make


def enter(app: t.Any) -> None:
    """Do what the README says: `Webhooks().init_app(app, db)`."""
    from flask_webhooks import Webhooks, signals

    for name in ORDER["models"]:
        importlib.import_module(name)
    db = _db()
    catalog = Path(ORDER["catalog"])
    if not catalog.exists():
        write_catalog(db, app.name, catalog)
    app.config.update(WEBHOOKS_CATALOG=str(catalog), **ORDER["config"])
    app.config["SECRET_KEY"] = app.config.get("SECRET_KEY") or "guest"
    Webhooks().init_app(app, db)
    seen.apps += 1
    signals.message_recorded.connect(_count, app)
    signals.message_broken.connect(_note_broken, app)
    if seen.apps == 1:
        _watch(db)


def _db() -> t.Any:
    module, _, name = ORDER["db"].partition(":")
    return getattr(importlib.import_module(module), name)


def _count(_: t.Any, messages: t.Sequence[t.Any], **__: t.Any) -> None:
    seen.messages += len(messages)


def _note_broken(_: t.Any, messages: t.Sequence[t.Any], **__: t.Any) -> None:
    seen.broken.update(f"{each['event']}: {each['error']}"[:300] for each in messages)


class _Warnings(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        """Count what the extension warns of."""
        seen.warnings[record.getMessage()[:300]] += 1


# ---- the catalogue ---------------------------------------------------------------------------------------


def write_catalog(db: t.Any, title: str, path: Path) -> None:
    """Write a channel for each model, with every include; `init.yaml` next to it is by `flask webhooks init`.

    What `init` leaves out is in ours all the same: rows that only tie others together, and names that sound like
    secrets. Columns that are refused are excluded.
    """
    from flask_webhooks.cli import scaffold
    from flask_webhooks.cli.scaffold.writer import _mappers

    draft = scaffold.draft(db, title=title)
    path.with_name("init.yaml").write_text(draft.text, encoding="utf-8")
    mappers = _mappers(db)
    channels = {sketch.name: _channel(sketch) for sketch in scaffold.sketch_all(mappers, None)}
    refused: dict[str, str] = {}
    while True:
        text = _text(title, channels)
        found = _refusals(text, path)
        if not found:
            break
        _mend(channels, found, refused)
    counts = {
        "channels": len(channels),
        "refused": refused,
        "init": draft.channels,
        "left_out": draft.left_out,
    }
    path.with_suffix(".json").write_text(json.dumps(counts, indent=1), encoding="utf-8")


def _channel(sketch: t.Any) -> dict[str, t.Any]:
    channel: dict[str, t.Any] = {
        "model": sketch.model,
        "owner": {"value": OWNER},
        "events": ["created", "updated", "deleted"],
    }
    if sketch.schema:
        channel["schema"] = sketch.schema
    if sketch.includes:
        channel["includes"] = list(sketch.includes)
    return channel


def _text(title: str, channels: dict[str, t.Any]) -> str:
    return json.dumps({"version": 1, "title": title, "channels": channels}, indent=1)  # JSON is YAML


def _refusals(text: str, path: Path) -> list[tuple[str, str, str]]:
    """Load it; return (channel, where inside it, why) of what is refused."""
    from flask_webhooks.bindings import open_catalog
    from flask_webhooks.errors import CatalogError

    path.write_text(text, encoding="utf-8")
    try:
        open_catalog(str(path), root=path.parent)
    except CatalogError as error:
        found = []
        for problem in error.problems:
            _, name, *rest = problem.path.split(".", 2)
            found.append((name.partition("[")[0], ".".join(rest), f"{problem.message} {problem.remedy}"))
        return found
    return []


def _mend(channels: dict[str, t.Any], found: list[tuple[str, str, str]], refused: dict[str, str]) -> None:
    """Do what the message says, with the channels first: what one excludes is in no include of it either."""
    own = [each for each in found if not each[1].startswith("includes")]
    for name, where, why in own or found:
        if name not in channels:
            continue
        columns = re.search(r"exclude: \[([^\]]+)\]", why)
        if own and columns and "schema" not in channels[name]:
            channels[name].setdefault("exclude", []).extend(columns[1].split(", "))
        elif own:
            refused[name] = f"{where} {why}"
            del channels[name]
        else:
            refused[f"{name}.includes"] = why
            channels[name].pop("includes", None)


# ---- the subscription ------------------------------------------------------------------------------------


def _watch(db: t.Any) -> None:
    """Look for tables and subscription when they may be gone."""
    from sqlalchemy import event, orm

    logging.getLogger("flask_webhooks").addHandler(_Warnings(logging.WARNING))

    def unsure(*_: t.Any, **__: t.Any) -> None:
        seen.is_unsure = True

    event.listen(db.metadata, "after_create", unsure)

    @event.listens_for(orm.Session, "after_begin")
    def after_begin(session: t.Any, _: t.Any, connection: t.Any) -> None:
        if seen.is_unsure and not session.info.get("guest"):
            seen.is_unsure = False
            seen.is_unsure = not settle_in(connection)


def settle_in(connection: t.Any) -> bool:
    """Create our tables, as after a migration, and the subscriptions of the mode.

    Return whether that lasts when the transaction is rolled back.
    """
    import sqlalchemy as sa
    from flask import current_app
    from sqlalchemy.pool import NullPool, SingletonThreadPool, StaticPool

    from flask_webhooks.state import EXTENSION

    if not current_app or EXTENSION not in current_app.extensions:
        return False
    engine = current_app.extensions["sqlalchemy"].engine
    if isinstance(engine.pool, StaticPool | SingletonThreadPool):  # its one connection is the host's
        _prepare(connection, current_app)
        return False
    # An engine of our own: a suite may record what the app's engines execute.
    ours = sa.create_engine(engine.url, poolclass=NullPool)
    with ours.begin() as own:
        _prepare(own, current_app)
    return True


def _prepare(connection: t.Any, app: t.Any) -> None:
    import sqlalchemy as sa

    from flask_webhooks import models, signing
    from flask_webhooks.ids import uuid7
    from flask_webhooks.state import state_of

    state = state_of(app._get_current_object())
    there = set(sa.inspect(connection).get_table_names())
    metadata = app.extensions["sqlalchemy"].metadata
    for table in models.Base.metadata.sorted_tables:
        if table.name not in there:
            metadata.tables[table.name].create(connection)
    if not IS_SUBSCRIBED:
        return
    listener, subscription, secret = (
        each.__table__ for each in (models.Listener, models.Subscription, models.Secret)
    )
    if connection.scalar(sa.select(sa.literal(1)).select_from(listener).limit(1)):
        return
    now = datetime.now(UTC)
    key = uuid7()
    row = {"id": key, "owner": OWNER, "environment": "staging", "url": "http://127.0.0.1:9/"}
    connection.execute(sa.insert(subscription), {**row, "created_at": now, "updated_at": now})
    sealed = state.vault.seal(signing.generate().text)
    connection.execute(sa.insert(secret), {"subscription_id": key, "sealed": sealed, "created_at": now})
    wanted = [
        {"subscription_id": key, "owner": OWNER, "event": pattern, "includes": includes}
        for pattern, includes in _wanted(state)
    ]
    connection.execute(sa.insert(listener), wanted)


def _wanted(state: t.Any) -> t.Iterator[tuple[str, list[str]]]:
    if ORDER["mode"] == "star":
        yield "*", ["changes"]
        return
    for event in state.catalog.events.values():
        bound = state.bound[event.channel]
        includes = list(bound.includes)
        yield event.name, includes if "changes" in includes else [*includes, "changes"]


if IS_INSTALLED:
    sys.meta_path.insert(0, Door(*ORDER["factory"].split(":")))
