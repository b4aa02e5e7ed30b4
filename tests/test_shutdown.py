"""The shutdown flag: set by a signal handler at any moment, seen by all threads, and not shared with a parent."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import pytest

from flask_webhooks.shutdown import ShutdownFlag
from tests.stage import wait_until

pytestmark = pytest.mark.long

HANDLER = """
import signal, time
from flask_webhooks.shutdown import ShutdownFlag

current, late = ShutdownFlag(), 0

def handle(number, frame):
    current.set()

signal.signal(signal.SIGALRM, handle)
until = time.monotonic() + 1.5
while time.monotonic() < until:
    current = ShutdownFlag()
    signal.setitimer(signal.ITIMER_REAL, 0.00003)
    while not current.is_set():
        current.wait(0.00001)
    # One that comes while it waits for long must end the wait at once.
    current = ShutdownFlag()
    signal.setitimer(signal.ITIMER_REAL, 0.001)
    began = time.monotonic()
    assert current.wait(30.0)
    late += time.monotonic() - began > 10
print("done", late)
"""


FORK = """
import os
from flask_webhooks.shutdown import ShutdownFlag

stop = ShutdownFlag()
child = os.fork()
if not child:
    stop.set()
    os._exit(7 if stop.wait(10.0) else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), stop.wait(0.0))
"""


def run(program: str) -> str:
    """What a program says."""
    words = [sys.executable, "-c", program]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout


def test_a_signal_at_any_moment_of_a_wait_ends_it() -> None:
    """A `threading.Event` in its place waits for itself after some hundred signals."""
    assert run(HANDLER) == "done 0\n"


def test_everybody_who_waits_is_woken_and_later_waits_end_at_once() -> None:
    stop, woken = ShutdownFlag(), []
    threads = [threading.Thread(target=lambda: woken.append(stop.wait(60.0))) for _ in range(8)]
    for thread in threads:
        thread.start()
    assert not stop.is_set()
    assert not stop.wait(0.0)

    stop.set()
    stop.set()

    wait_until(lambda: woken == [True] * 8, 10)
    began = time.monotonic()
    assert all(stop.wait(60.0) for _ in range(100))
    assert time.monotonic() - began < 10


def test_a_forked_child_stops_by_itself_and_its_parent_goes_on() -> None:
    assert run(FORK) == "7 False\n"
