"""The cost of a commit beyond its statements: calls of our functions, which do not depend on other processes."""

from __future__ import annotations

import sys
import typing as t
from collections import Counter
from pathlib import Path

import pytest

import flask_webhooks
from flask_webhooks.state import AppState
from tests.capture.conftest import NOWHERE
from tests.host import Invoice, Line, db
from tests.stage import subscribe

OURS = str(Path(flask_webhooks.__file__).parent)
CHOOSING = {"_choose", "_owning", "is_same_database"}
"""Between the apps of a process, on which databases they are: here other tests have left some, a host has one."""


def commit(invoices: int, lines: int) -> None:
    for number in range(invoices):
        db.session.add(Invoice(owner="1", number=str(number), lines=[Line() for _ in range(lines)]))
    db.session.commit()


def is_choosing(frame: t.Any) -> bool:
    """Whether one of these calls it, perhaps for each app that other tests have left (in a comprehension)."""
    above = frame.f_back, frame.f_back and frame.f_back.f_back
    return any(each is not None and each.f_code.co_name in CHOOSING for each in above)


def calls(invoices: int, lines: int) -> int:
    """How often functions of ours are called in a commit that is not the first of its kind."""
    commit(invoices, lines)
    found: Counter[str] = Counter()

    def note(frame: t.Any, event: str, _: t.Any) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(OURS) or code.co_name.startswith("<"):
            return
        if code.co_name not in CHOOSING and Path(code.co_filename).name != "engines.py":
            found[code.co_name] += not is_choosing(frame)

    sys.setprofile(note)
    try:
        commit(invoices, lines)
    finally:
        sys.setprofile(None)
    return found.total()


@pytest.mark.parametrize(
    ("is_heard", "invoices", "lines", "most"),
    [(False, 1, 5, 125), (True, 1, 5, 265), (True, 50, 5, 6400), (True, 100, 0, 7000)],
    ids=["nobody", "one", "many with lines", "many events"],
)
def test_calls(state: AppState, *, is_heard: bool, invoices: int, lines: int, most: int) -> None:
    """A tenth more than today: a change that needs more must raise the bound on purpose."""
    subscribe(state, NOWHERE, "invoices.created", owner="1" if is_heard else "2")

    assert calls(invoices, lines) <= most
