"""Real processes for tests: workers as in production, started, signalled and killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import typing as t
from pathlib import Path

import pytest

from flask_webhooks.state import AppState
from tests import forked
from tests.stage import wait_until

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = {"WEBHOOKS_BREAKER": False, "WEBHOOKS_TIMEOUT": [2, 5]}


class Process:
    """A command of a virtual environment, with what it says in a file."""

    def __init__(
        self, words: t.Sequence[str], env: t.Mapping[str, str], log: Path, *, is_cold: bool = False
    ) -> None:
        self.log = log
        log.touch()
        self._process = forked.start(words, env, ROOT, log, log, is_cold=is_cold)
        self.pid = t.cast("int", self._process.pid)

    @property
    def said(self) -> str:
        """All that it has printed."""
        return self.log.read_text()

    def wait_for(self, text: str, seconds: float = 60.0, *, count: int = 1) -> None:
        """Return as soon as it has printed this, so many times."""
        self.wait_until(lambda: self.said.count(text) >= count, seconds, about=f"{text} in {self.log}")

    def wait_until(self, condition: t.Callable[[], t.Any], seconds: float = 60.0, *, about: str = "") -> None:
        """Return as soon as a condition holds; fail with all it has said, at once if it ends before.

        What it still does when the time is up, it is made to say too: the stacks of all its threads.
        """
        try:
            wait_until(lambda: not self.is_alive or condition(), seconds, about=about)
        except pytest.fail.Exception as error:
            pytest.fail(f"{error}\n{self._stacks()}")
        assert condition(), f"It has ended.\n{self.said}"

    def _stacks(self) -> str:
        """All it has said, and where each of its threads is (`tests.served` has arranged for that)."""
        before = self.said
        self.send(signal.SIGUSR1)
        with contextlib.suppress(pytest.fail.Exception):
            wait_until(lambda: self.said.count("\n") > before.count("\n") + 3, 5.0)
        return self.said

    def send(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def end(self, number: int = signal.SIGTERM, seconds: float = 60.0) -> int:
        """Send a signal, wait for the end and return the exit code."""
        self.send(number)
        return self.wait(seconds)

    def wait(self, seconds: float = 60.0) -> int:
        """Wait for the end and return the exit code."""
        self._process.join(seconds)
        assert self._process.exitcode is not None, f"It still runs after {seconds} s.\n{self._stacks()}"
        return self._process.exitcode

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._process.is_alive()

    def kill_all(self) -> None:
        """Kill it with all it has started, and wait until they are gone: the next test may use their database."""
        self._process.kill()
        while alive := in_session(self.pid):
            for pid in alive:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.join(0.01)
        self._process.join(10)


def in_session(leader: int) -> set[int]:
    """The processes that run in a session. RQ's horse has a process group of its own, but not that."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, session = path.read_text().rpartition(")")[2].split()[:4]
            if int(session) == leader and state not in "ZX":
                found.add(int(path.parent.name))
    return found


class Processes:
    """Starts processes that share the test's database, instance folder and Redis; kills what is left at the end."""

    def __init__(self, state: AppState, folder: Path, redis_url: str | None, **settings: t.Any) -> None:
        self._folder = folder
        self._running: list[Process] = []
        self.redis_url = redis_url
        config = {**SETTINGS, "WEBHOOKS_REDIS_URL": redis_url or "embedded", **settings}
        self.env = {
            "FLASK_APP": "tests.served:create_app",
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "TEST_DATABASE": state.engine.url.render_as_string(hide_password=False),
            "TEST_FOLDER": str(folder),
            "TEST_SETTINGS": json.dumps(config),
        }

    def start(self, *words: str, is_cold: bool = False, **env: str) -> Process:
        """Start `python -m words…`."""
        log = self._folder / f"process-{len(self._running)}.log"
        process = Process(words, {**self.env, **env}, log, is_cold=is_cold)
        self._running.append(process)
        return process

    def worker(self, *, ready: bool = True) -> Process:
        """`flask webhooks worker`."""
        process = self.start("flask", "webhooks", "worker")
        if ready:
            process.wait_for("waits on queue")
        return process

    def stock_worker(self, *words: str, **env: str) -> Process:
        """`rq worker webhooks --url …`, started without anything of ours."""
        assert self.redis_url is not None
        words = ("rq.cli", "worker", "webhooks", "--url", self.redis_url, *words)
        return self.start(*words, is_cold=True, **env)

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running:
            process.kill_all()
