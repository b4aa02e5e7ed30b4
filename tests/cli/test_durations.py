"""Durations on the command line: one syntax for every option that takes one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from flask_webhooks.cli.durations import SECONDS, duration
from flask_webhooks.models import Delivery
from flask_webhooks.state import AppState
from tests.cli.conftest import Command
from tests.stage import fill, recorded, subscribe


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90),
        ("0", 0),
        ("1.5", 1.5),
        ("5m", 300),
        ("5M", 300),
        ("1h30m", 5400),
        ("2.5d", 216_000),
        (" 1w ", 604_800),
        ("0.25s", 0.25),
    ],
)
def test_a_time_span_is_what_it_says(text: str, seconds: float) -> None:
    assert duration(text, "s") == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "m",
        "-5m",
        "5 m",
        "5x",
        "5m!",
        "m5",
        "²h",
        "٣h",
        "1e9",
        "nan",
        "inf",
        "9" * 12 + "w",
        "9" * 5000,
        "5mm",
    ],
)
def test_anything_else_names_none(text: str) -> None:
    assert duration(text, "s") is None


def test_without_a_unit_only_where_one_is_meant() -> None:
    assert duration("90") is None


@given(st.text())
def test_no_text_breaks_it(text: str) -> None:
    assert duration(text) is None or duration(text) >= timedelta()


@given(st.integers(0, 10_000), st.sampled_from(sorted(SECONDS)))
def test_every_unit_counts(number: int, unit: str) -> None:
    assert duration(f"{number}{unit}") == timedelta(seconds=number * SECONDS[unit])


@pytest.mark.parametrize(("given", "expect"), [("5m", 1), ("300", 1), ("0.1h", 0), ("1h", 0), ("7d", 0)])
def test_status_fails_if_something_is_older(
    state: AppState, flask_webhooks: Command, given: str, expect: int
) -> None:
    fill(state, [subscribe(state, "http://127.0.0.1:9/")], 1)
    with state.engine.begin() as connection:
        connection.execute(sa.update(Delivery).values(due_at=datetime.now(UTC) - timedelta(seconds=330)))

    flask_webhooks("status", "--fail-if-older", given, expect=expect)


def test_a_span_that_is_none_is_a_mistake_of_the_call(flask_webhooks: Command) -> None:
    for words in (("status", "--fail-if-older", "soon"), ("purge", "--older-than", "-3d")):
        said = flask_webhooks(*words, expect=2)

        assert "Use one such as 90s, 5m, 1h30m or 7d." in said.output
    assert (
        "before the first possible date"
        in flask_webhooks("purge", "--older-than", "900000d", expect=2).output
    )


@pytest.mark.parametrize(
    ("words", "left"),
    [(["--older-than", "0s"], 0), (["--older-than", "90s"], 1), (["--days", "0"], 0), (["--days", "3"], 1)],
)
def test_purge_takes_an_age(state: AppState, flask_webhooks: Command, words: list[str], left: int) -> None:
    fill(state, [subscribe(state, "http://127.0.0.1:9/")], 1)
    with state.engine.begin() as connection:
        connection.execute(sa.update(Delivery).values(state="delivered", due_at=None))

    flask_webhooks("purge", *words)

    assert len(recorded(state)) == left


@pytest.mark.parametrize("age", ["1h30m", "2w", "90s", "0.5d"])
def test_replay_takes_the_same_ages(state: AppState, flask_webhooks: Command, age: str) -> None:
    row = subscribe(state, "http://127.0.0.1:9/", "reports.*")
    fill(state, [row], 1)
    with state.engine.begin() as connection:
        connection.execute(sa.update(Delivery).values(state="failed", due_at=None))

    assert "1 would be sent." in flask_webhooks("replay", row.id, "--since", age, "--dry-run").output
