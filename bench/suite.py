"""What a whole suite of tests costs with us in the app: the example app's own tests, in one process and in turns.

python -m bench.suite [--rounds 5] [--json] [--only test_trade.py]

Four ways, each once a round, the order turned with each round: `without` (no `init_app`, our listeners off
SQLAlchemy's `Session`), `nobody` (without a subscription), `star` (each business has one subscription to `*`),
`everything` (each to every event with every include and `changes`). The catalogue is over everything that the app has:
31 channels. Counted is the CPU time of set-up, test and tear-down of those tests that pass in all four ways, without
what it takes to subscribe. Printed is the median, over the rounds, of the ratio to `without` of the same round.

As in most suites there is one app for all tests, on a database that each test finds new. The example app's own tests
make an app each, which is unusual: the time of `init_app`, and the garbage that each app of 31 channels
leaves to Python's collector, would be most of what is measured. What `init_app` takes is printed too.

Left out are the files that no host would have: of the catalogue alone (`test_catalog.py`), of the docs
(`test_docs.py`), and of the receiver, which is a process of its own (`test_receiver.py`).
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import json
import shutil
import statistics
import sys
import tempfile
import time
import typing as t
from collections import defaultdict
from pathlib import Path

import pytest
import sqlalchemy as sa
from flask import Flask
from flask_sqlalchemy import SQLAlchemy

from bench.commit import without_extension
from bench.stage import progress
from example_app.models import Business
from flask_webhooks import Webhooks
from flask_webhooks.state import EXTENSION, AppState, state_of
from tests.stage import subscribe

TESTS = Path(__file__).resolve().parent.parent / "tests" / "example_app"
LEFT_OUT = ("test_catalog.py", "test_docs.py", "test_receiver.py")
WAYS = ("without", "nobody", "star", "everything")
GOALS = {"nobody": 1.05, "star": 1.2, "everything": 1.4}


class Round:
    """One run of the tests in one way: a pytest plugin."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()
        self.starts: list[float] = []
        """CPU seconds of each `init_app`."""
        self._excluded = 0.0
        """CPU seconds of the running test that are not the app's."""
        self._app: Flask | None = None
        """The one that all tests share."""

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Let the fixture of the tests give them all the same app."""
        [fixtures] = [
            each
            for each in session.config.pluginmanager.get_plugins()
            if getattr(each, "__file__", None) == str(TESTS / "conftest.py")
        ]
        make = fixtures.make_app
        folder = Path(tempfile.mkdtemp(prefix="webhooks-bench-"))
        file, subscribed = folder / "shared.sqlite", folder / "subscribed.sqlite"

        def make_app(database: Path, **config: t.Any) -> Flask:
            if config or not Path(database).exists():  # it is made to be seeded
                return t.cast("Flask", make(database, **config))
            with self.excluded():
                for old in folder.glob("shared.sqlite*"):
                    old.unlink()
            shutil.copy(subscribed if subscribed.exists() else database, file)
            if self._app is None:
                with self.excluded():
                    gc.collect()  # the app that was seeded: among several, each commit has to find its own
                self._app = make(file)
                with self.excluded(), self._app.app_context():
                    if EXTENSION in self._app.extensions and self.way != "nobody":
                        self.listen(state_of(self._app))
                    fixtures.close(self._app)
                    shutil.copy(file, subscribed)
            return self._app

        def restore() -> None:
            fixtures.make_app = make
            shutil.rmtree(folder)

        fixtures.make_app = make_app
        session.config.add_cleanup(restore)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> t.Generator[None, t.Any, t.Any]:
        """Take the CPU time of one test, with its fixtures."""
        began, self._excluded = time.process_time(), 0.0
        found = yield
        self.seconds[item.nodeid] = time.process_time() - began - self._excluded
        return found

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what does not pass."""
        if not report.passed:
            self.failed.add(report.nodeid)

    @contextlib.contextmanager
    def excluded(self) -> t.Iterator[None]:
        """Do not count the CPU time of the block: a host's own tests would not spend it."""
        began = time.process_time()
        yield
        self._excluded += time.process_time() - began

    @contextlib.contextmanager
    def installed(self) -> t.Iterator[None]:
        """Let the example app be a host in this way."""
        original = Webhooks.init_app

        def init_app(webhooks: Webhooks, app: Flask, db: SQLAlchemy) -> None:
            if self.way == "without":
                return
            began = time.process_time()
            original(webhooks, app, db)
            spent = time.process_time() - began
            self.starts.append(spent)
            self._aside += spent

        Webhooks.init_app = init_app  # type: ignore[method-assign]
        try:
            with without_extension() if self.way == "without" else contextlib.nullcontext():
                yield
        finally:
            Webhooks.init_app = original  # type: ignore[method-assign]

    def listen(self, state: AppState) -> None:
        """Subscribe for each business."""
        with state.engine.connect() as connection:
            owners = [str(key) for key in connection.scalars(sa.select(Business.id))]
        for owner in owners:
            if self.way == "star":
                subscribe(state, "http://127.0.0.1:9/", "*", owner=owner)
                continue
            for event in state.catalog.events.values():
                includes = sorted({*state.bound[event.channel].includes, "changes"})
                subscribe(state, "http://127.0.0.1:9/", event.name, owner=owner, includes=includes)

    def run(self, words: t.Sequence[str]) -> None:
        """Run the tests, and say nothing."""
        said = io.StringIO()
        with self.installed(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            pytest.main(
                [
                    "-q",
                    "-p",
                    "no:cacheprovider",
                    "-W",
                    "ignore::pytest.PytestAssertRewriteWarning",
                    "-m",
                    "not deep",
                    *(f"--ignore={TESTS / name}" for name in LEFT_OUT),
                    *words,
                ],
                plugins=[self],
            )


def main() -> int:
    """Run the tests in turns, and print a line a way; exit 1 if a goal is missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="one file of the tests")
    parser.add_argument("--json", action="store_true")
    options, _ = parser.parse_known_args()
    words = [str(TESTS / options.only)]
    warm = {way: Round(way) for way in ("nobody", *WAYS)}
    for each in (
        Round("nobody"),
        *warm.values(),
    ):  # the first has to import everything, and to install the listeners
        progress(f"warming up: {each.way}")
        each.run(words)
    failed = set().union(*(each.failed for each in warm.values()))
    seconds: dict[str, list[float]] = defaultdict(list)
    starts: dict[str, list[float]] = defaultdict(list)
    count = 0
    for number in range(options.rounds):
        for way in (*WAYS[number % 4 :], *WAYS[: number % 4]):
            progress(f"round {number + 1} of {options.rounds}: {way}")
            each = Round(way)
            each.run(words)
            passed = [spent for name, spent in each.seconds.items() if name not in failed]
            count = len(passed)
            seconds[way].append(sum(passed))
            starts[way] += each.starts
    progress("")
    is_good = True
    for way in WAYS:
        ratio = statistics.median(
            ours / plain for plain, ours in zip(seconds["without"], seconds[way], strict=True)
        )
        goal = GOALS.get(way)
        is_good = is_good and (goal is None or ratio <= goal)
        row = {
            "way": way,
            "tests": count,
            "cpu_seconds": round(statistics.median(seconds[way]), 2),
            "ratio": round(ratio, 3),
            "goal": goal,
            "init_app_ms": round(statistics.median(starts[way]) * 1000, 1) if starts[way] else None,
        }
        if options.json:
            print(json.dumps(row), flush=True)
        else:
            verdict = "" if goal is None else f"  goal {goal:.2f}x {'ok' if ratio <= goal else 'MISSED'}"
            start = "" if row["init_app_ms"] is None else f"  init_app {row['init_app_ms']} ms"
            print(
                f"{way:12}{count:5} tests{row['cpu_seconds']:9.2f} s CPU{ratio:8.3f}x{start}{verdict}",
                flush=True,
            )
    if failed:
        print(f"left out, because they do not pass in every way: {len(failed)}", file=sys.stderr)
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
