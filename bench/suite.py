"""What a whole suite of tests costs with us in the app: the example app's own tests, in one process and in turns.

python -m bench.suite [--rounds 5] [--json] [--only test_trade.py]

Four ways, each once a round, the order turned with each round: `without` (no `init_app`, our listeners off
SQLAlchemy's `Session`), `nobody` (with nobody subscribed), `star` (each business has one subscription to `*`),
`everything` (each to every event with every include and `changes`). The catalogue is over everything that the app has:
31 channels. Counted is the CPU time of set-up, test and tear-down of those tests that pass in all four ways, without
what it takes to subscribe, and without `init_app`, which here comes before each test and in most suites once: what that
takes is told beside. Told is the median, over the rounds, of the ratio to `without` of the same round.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import sys
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
from flask_webhooks.models import Listener, Subscription
from flask_webhooks.state import AppState, state_of
from tests.stage import subscribe

TESTS = Path(__file__).resolve().parent.parent / "tests" / "example_app"
WAYS = ("without", "nobody", "star", "everything")
GOALS = {"nobody": 1.05, "star": 1.2, "everything": 1.4}


class Round:
    """One run of the tests in one way: a pytest plugin."""

    def __init__(self, way: str) -> None:
        self.way = way
        self.seconds: dict[str, float] = {}
        self.failed: set[str] = set()
        self.starts: list[float] = []
        """What each `init_app` took."""
        self._aside = 0.0

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> t.Generator[None, t.Any, t.Any]:
        """Take the CPU time of one test, with its fixtures."""
        began, self._aside = time.process_time(), 0.0
        found = yield
        self.seconds[item.nodeid] = time.process_time() - began - self._aside
        return found

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note what does not pass."""
        if not report.passed:
            self.failed.add(report.nodeid)

    @contextlib.contextmanager
    def aside(self) -> t.Iterator[None]:
        """What is done inside is not the app's."""
        began = time.process_time()
        yield
        self._aside += time.process_time() - began

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
            if self.way != "nobody":
                with self.aside(), app.app_context():
                    self.listen(state_of(app))

        Webhooks.init_app = init_app  # type: ignore[method-assign]
        try:
            with without_extension() if self.way == "without" else contextlib.nullcontext():
                yield
        finally:
            Webhooks.init_app = original  # type: ignore[method-assign]

    def listen(self, state: AppState) -> None:
        """Subscribe for each business of a database that has any."""
        if not sa.inspect(state.engine).has_table(Subscription.__tablename__):
            return
        with state.engine.connect() as connection:
            if connection.scalar(sa.select(sa.literal(1)).select_from(Listener).limit(1)):
                return
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
