"""`make demo`: the whole product at work in one terminal.

Four processes, as in real life: the web app, a worker, a receiver whose verifier is a library of others, and this
one, which does business and checks that every committed event arrives exactly as it was committed, and that nothing
arrives that was rolled back.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import typing as t
from collections import defaultdict, deque
from collections.abc import Iterator
from pathlib import Path
from statistics import quantiles

import requests
from flask import Flask

from flask_webhooks.state import state_of

from . import create_app
from .models import db
from .seed import FOUNDINGS, PASSWORD, demo_token, seed
from .simulation import Simulation, Step

PACE = 10.0
"""Steps of business a second."""
PATIENCE = 15.0
"""Seconds to wait at the end for what has not arrived."""
HOME = Path(__file__).resolve().parent.parent


COLOURS = sys.stdout.isatty() and "NO_COLOR" not in os.environ


class Style:
    """Escape sequences, empty where the terminal shows no colours."""

    dim, green, red, bold, plain = (f"\x1b[{n}m" * COLOURS for n in (2, 32, 31, 1, 0))


class Ledger:
    """What was committed and what arrived."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.expected: dict[tuple[str, str, str], deque[float]] = defaultdict(deque)
        """(business, event, tag) to the times of the commits that have not arrived yet."""
        self.early: list[dict[str, t.Any]] = []
        """Arrived before this process had noted the commit."""
        self.seen: set[tuple[str, str]] = set()
        self.latencies: list[float] = []
        self.committed = self.received = self.verified = self.duplicates = self.unexpected = (
            self.rolled_back
        ) = 0

    def commit(self, step: Step, at: float) -> None:
        """Note what a step committed."""
        with self.lock:
            if not step.is_committed:
                self.rolled_back += 1
                print(
                    f"{Style.dim}{'rolled back':>15}  {step.action.replace('_', ' ')}: nothing is sent{Style.plain}"
                )
            for change in step.changes:
                self.committed += 1
                self.expected[(str(step.business_id), change.event, change.tag)].append(at)
            early, self.early = self.early, []
            for record in early:
                self._match(record)

    def receive(self, record: dict[str, t.Any]) -> None:
        """Note what the receiver got."""
        with self.lock:
            self.received += 1
            self.verified += record["verified"]
            if not record["verified"]:  # of a stranger: what it says is not looked at
                print(f"{Style.red}NOT VERIFIED{Style.plain} {record['path']!r}")
                return
            key = (record["path"], record["webhook_id"])
            if key in self.seen:
                self.duplicates += 1
                return
            self.seen.add(key)
            self._match(record)

    def _match(self, record: dict[str, t.Any]) -> None:
        body = record["body"]
        waiting = self.expected.get((record["path"].split("/")[1], body["event"], body["data"]["tag"]))
        if not waiting:
            self.early.append(record)
            return
        latency = record["received_at"] - waiting.popleft()
        self.latencies.append(latency)
        mark = f"{Style.green}verified{Style.plain}"
        print(
            f"{latency * 1000:12.0f} ms  {Style.bold}{body['event']:<30}{Style.plain} "
            f"{body['data']['tag']:<14} {body['idempotency_key']}  {body['environment']}  {mark}"
        )

    @property
    def missing(self) -> int:
        """Committed and not arrived."""
        with self.lock:
            return sum(len(times) for times in self.expected.values())

    def summary(self) -> bool:
        """Print the sums; return whether all is well."""
        missing, unexpected = self.missing, len(self.early)
        good = not missing and not unexpected and self.verified == self.received > 0
        print(f"\n{Style.bold}Summary{Style.plain}")
        for name, value in (
            ("committed", self.committed),
            ("received", self.received),
            ("verified", self.verified),
            ("duplicates", self.duplicates),
            ("missing", missing),
            ("never committed", unexpected),
            ("rolled back", self.rolled_back),
        ):
            print(f"  {name:<16}{value:>6}")
        if len(self.latencies) > 1:
            cuts = quantiles(self.latencies, n=100)
            print(f"  commit to receipt: p50 {cuts[49] * 1000:.0f} ms, p99 {cuts[98] * 1000:.0f} ms")
        colour, verdict = (
            (Style.green, "All arrived, all verified.") if good else (Style.red, "Something is wrong.")
        )
        print(f"{colour}{verdict}{Style.plain}")
        return good


def free_port() -> int:
    """A port that no process uses at the moment."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def start(*words: str, **options: t.Any) -> subprocess.Popen[str]:
    """Start a Python module in a session of its own: Ctrl-C reaches it through us."""
    return subprocess.Popen([sys.executable, *words], cwd=HOME, text=True, start_new_session=True, **options)


@contextlib.contextmanager
def processes(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run web app, worker and receiver; yield the app's address and the receiver."""
    port, log = free_port(), open(folder / "log.txt", "w")
    flask = ("-m", "flask", "--app", "example_app")
    running = [
        start("-m", "example_app.receiver", stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log),
        start(*flask, "webhooks", "worker", stdout=log, stderr=log),
        start(*flask, "run", "--port", str(port), stdout=log, stderr=log),
    ]
    try:
        yield f"http://127.0.0.1:{port}", running[0]
    finally:
        for process in running:
            process.terminate()
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            process.kill()
        log.close()


def subscribe(address: str, receiver: subprocess.Popen[str]) -> None:
    """Make two subscriptions for each business through the API: ledgers are exclusive, so they have their own."""
    assert receiver.stdin is not None
    assert receiver.stdout is not None
    port = json.loads(receiver.stdout.readline())["port"]
    for number, founding in enumerate(FOUNDINGS, start=1):
        for name, events in (("all", ["*"]), ("ledgers", ["ledgers.*"])):
            path = f"/{number}/{name}"
            answer = requests.post(
                f"{address}/webhooks/api/subscriptions",
                json={
                    "url": f"http://127.0.0.1:{port}{path}",
                    "events": events,
                    "description": f"Demo: {name}",
                },
                headers={"Authorization": f"Bearer {demo_token(founding.people[0][1])}"},
                timeout=30,
            )
            if answer.status_code != 201:
                raise SystemExit(f"The API answered {answer.status_code}: {answer.text}")
            receiver.stdin.write(json.dumps({path: answer.json()["secret"]}) + "\n")
            receiver.stdin.flush()
            receiver.stdout.readline()


def wait_for(address: str, seconds: float = 60.0) -> None:
    """Return when the app answers."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            requests.get(address, timeout=5)
            return
        except requests.ConnectionError:
            if time.monotonic() > deadline:
                raise SystemExit(f"The app at {address} did not start.") from None
            time.sleep(0.1)


def do_business(app: Flask, ledger: Ledger, seconds: float | None, stop: threading.Event) -> None:
    """Simulation at an even pace until the time is up or Ctrl-C is pressed."""
    simulation = Simulation(app, seed=int(time.time()))
    began = time.monotonic()
    number = 0
    while not stop.is_set() and (seconds is None or time.monotonic() - began < seconds):
        step = simulation.step()
        ledger.commit(step, time.time())
        number += 1
        stop.wait(max(0.0, began + number / PACE - time.monotonic()))


def read(receiver: subprocess.Popen[str], ledger: Ledger) -> None:
    """Take what the receiver prints until it ends."""
    assert receiver.stdout is not None
    for line in receiver.stdout:
        ledger.receive(json.loads(line))


def run(folder: Path, seconds: float | None) -> bool:
    """Show it all; return whether every event arrived and was verified."""
    os.environ.update(
        EXAMPLE_INSTANCE_PATH=str(folder),
        EXAMPLE_WEBHOOKS_ALLOW_HTTP="true",
        EXAMPLE_WEBHOOKS_ALLOWED_NETWORKS='["127.0.0.0/8"]',
    )
    app = create_app()
    with app.app_context():
        seed(db)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    ledger = Ledger()
    with contextlib.ExitStack() as stack:
        stack.callback(state_of(app).embedded.stop_if_last)  # after everybody else has gone
        address, receiver = stack.enter_context(processes(folder))
        wait_for(address)
        subscribe(address, receiver)
        person = FOUNDINGS[0].people[0][1]
        print(f"{Style.bold}The app: {address}{Style.plain}   sign in as {person} / {PASSWORD}")
        print(f"{Style.bold}Console: {address}/webhooks/console/{Style.plain}\n")
        print(f"{'commit→receipt':>15}  {'event':<30} {'record':<14} idempotency key")
        threading.Thread(target=read, args=(receiver, ledger), daemon=True).start()
        do_business(app, ledger, seconds, stop)
        deadline = time.monotonic() + PATIENCE
        while ledger.missing and time.monotonic() < deadline:
            time.sleep(0.05)
        good = ledger.summary()
        if not good:
            print((folder / "log.txt").read_text()[-4000:], file=sys.stderr)
    return good


def main() -> None:
    """Entry point of `make demo`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, help="stop by itself after that long")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="webhooks-demo-"))
    try:
        good = run(folder, options.seconds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
