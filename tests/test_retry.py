from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_webhooks.outcome import Verdict, decide
from flask_webhooks.retry import STANDARD, bounded, customers_schedule, retry_after, schedule

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
HOUR = 3600


def outcome(**given: object) -> Verdict:
    """Decide on a first attempt with the schedule 10 s, 100 s and no jitter, unless `changes` say otherwise."""
    facts = {"status": None, "failure": None, "attempts": 1, "schedule": (10.0, 100.0), "draw": 0.0}
    return decide(**{**facts, **given})  # type: ignore[arg-type]


class TestStandard:
    def test_makes_ten_attempts_by_the_published_table(self):
        assert STANDARD == (
            5,
            5 * 60,
            30 * 60,
            2 * HOUR,
            5 * HOUR,
            10 * HOUR,
            14 * HOUR,
            20 * HOUR,
            24 * HOUR,
        )
        assert len(STANDARD) + 1 == 10

    def test_lasts_three_days_and_no_more_than_four(self):
        assert sum(STANDARD) == 5 + 5 * 60 + 30 * 60 + (2 + 5 + 10 + 14 + 20 + 24) * HOUR
        assert 3 * 24 * HOUR < sum(STANDARD) * 1.2 < 4 * 24 * HOUR


class TestSchedule:
    @pytest.mark.parametrize(
        ("spec", "waits"),
        [
            ("standard", STANDARD),
            ("none", ()),
            ([], ()),
            ([5, 60.5], (5.0, 60.5)),
            ((0,), (0.0,)),
            ([604800] * 50, (604800.0,) * 50),
        ],
    )
    def test_accepts(self, spec, waits):
        assert schedule(spec, "none") == waits

    @pytest.mark.parametrize(
        ("default", "waits"), [("standard", STANDARD), ("none", ()), ((7.0,), (7.0,)), ([7], (7.0,))]
    )
    def test_none_takes_the_default(self, default, waits):
        assert schedule(None, default) == waits

    @pytest.mark.parametrize(
        "spec",
        [
            "sometimes",
            "",
            b"standard",
            5,
            [True],
            [-1],
            ["5"],
            [math.nan],
            [math.inf],
            [604801],
            [1] * 51,
            {5: 1},
            {5},
        ],
        ids=repr,
    )
    def test_refuses_and_says_what_is_accepted(self, spec):
        with pytest.raises(ValueError, match="Use 'standard', 'none', or a list of at most 50 waits"):
            schedule(spec, "standard")

    def test_says_what_is_accepted_however_much_was_given(self):
        with pytest.raises(ValueError, match="such as ") as caught:
            schedule(["x" * 10_000])
        assert len(str(caught.value)) < 350


class TestCustomers:
    @pytest.mark.parametrize(
        "spec", [None, "standard", "none", [], [1], [5, 300, 3600], [1] * 10, [1] * 10 + [60] * 40], ids=repr
    )
    def test_takes_what_leaves_a_server_in_peace(self, spec):
        assert customers_schedule(spec) == (None if spec is None else schedule(spec))

    @pytest.mark.parametrize(
        "spec", [[0], [0] * 50, [0.001], [5, 0.999], [1] * 50, [60] * 10 + [59]], ids=repr
    )
    def test_refuses_what_would_be_a_cannon(self, spec):
        with pytest.raises(ValueError, match="at least 1 second each, and from wait 11 on at least 60"):
            customers_schedule(spec)

    def test_what_was_saved_before_is_kept_to_within_the_bounds(self):
        assert bounded([0.0] * 50) == (1.0,) * 10 + (60.0,) * 40
        assert bounded(STANDARD) == STANDARD


class TestRetryAfter:
    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            ("0", 0),
            ("120", 120),
            (" 120 ", 120),
            ("007", 7),
            ("86400", 86400),
            ("1.5", 1.5),
            ("30.", 30),
            ("120, 60", 120),
            ("86401", 86400),
            ("9" * 5000, 86400),
            ("Sun, 01 Mar 2026 12:02:00 GMT", 120),
            ("Sunday, 01-Mar-26 12:02:00 GMT", 120),
            ("Sun Mar  1 12:02:00 2026", 120),
            ("Sun, 01 Mar 2026 11:58:00 GMT", 0),
            ("Fri, 31 Dec 2027 23:59:59 GMT", 86400),
        ],
    )
    def test_reads_seconds_and_dates(self, value, seconds):
        assert retry_after(value, NOW) == seconds

    @pytest.mark.parametrize(
        "value",
        [
            None,
            "",
            "-5",
            "+5",
            ".5",
            "1.2.3",
            "60,",
            "1e3",
            "soon",
            "٣",
            "Sun, 99 Mar 2026 12:02:00 GMT",
            "x" * 9999,
        ],
    )
    def test_anything_else_is_no_hint(self, value):
        assert retry_after(value, NOW) is None

    def test_a_date_counts_from_now_in_whatever_zone_now_is(self):
        accra_plus_three = NOW.astimezone(timezone(timedelta(hours=3)))

        assert retry_after("Sun, 01 Mar 2026 12:00:30 GMT", accra_plus_three) == 30

    @pytest.mark.parametrize(
        "value",
        [
            "Sun, 01 Mar 99999999999999999999 12:02:00 GMT",
            "Sun, 01 Mar 0001 00:00:00 +2359",
            "Sun, 01 Mar 2026 12:02:00 +99999999999999999999",
            "Sun, 01 Mar 9999 23:59:59 -2359",
            "9",
            ", ,",
            "0 0 0 0 0",
        ],
    )
    def test_a_date_beyond_all_dates_does_no_harm(self, value):
        assert retry_after(value, NOW) in (None, 0, 9, 86400)

    @given(st.integers(-100000, 100000))
    def test_reads_back_what_the_standard_library_writes(self, seconds):
        header = format_datetime(NOW + timedelta(seconds=seconds), usegmt=True)

        assert retry_after(header, NOW) == min(max(seconds, 0), 86400)

    @given(st.text() | st.from_regex(r"[A-Z][a-z]{2},? \d{1,12} [A-Z][a-z]{2} -?\d{1,6} [\d:]{1,9} \S{0,5}"))
    def test_never_raises_and_stays_within_a_day(self, value):
        seconds = retry_after(value, NOW)

        assert seconds is None or 0 <= seconds <= 86400
