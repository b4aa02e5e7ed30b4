from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_webhooks.retry import (
    STANDARD,
    Failure,
    Verdict,
    bounded,
    customers_schedule,
    decide,
    retry_after,
    schedule,
)

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


class TestFailure:
    @pytest.mark.parametrize("failure", Failure)
    def test_every_class_has_a_hint_in_one_line(self, failure):
        assert failure.hint.endswith(".")
        assert "\n" not in failure.hint
        assert len(failure.hint) <= 110

    @pytest.mark.parametrize(
        ("status", "failure"),
        [
            (100, Failure.PROTOCOL),
            (101, Failure.PROTOCOL),
            (199, Failure.PROTOCOL),
            (200, None),
            (204, None),
            (299, None),
            (300, Failure.REDIRECT),
            (304, Failure.REDIRECT),
            (399, Failure.REDIRECT),
            (400, Failure.HTTP_4XX),
            (499, Failure.HTTP_4XX),
            (500, Failure.HTTP_5XX),
            (599, Failure.HTTP_5XX),
            (999, Failure.HTTP_5XX),
        ],
    )
    def test_a_status_has_its_class(self, status, failure):
        assert Failure.of_status(status) is failure

    def test_only_poison_is_our_own_fault(self):
        assert [failure for failure in Failure if failure.is_ours] == [Failure.POISON]


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


class TestDecide:
    @pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
    def test_2xx_is_delivered(self, status):
        assert outcome(status=status) == Verdict("delivered")

    @pytest.mark.parametrize("status", [199, 300, 301, 304, 307, 400, 404, 422, 500, 502, 600])
    def test_any_other_status_is_tried_again(self, status):
        assert outcome(status=status) == Verdict("pending", retry_in=10)

    @pytest.mark.parametrize("failure", Failure)
    def test_every_failure_is_tried_again_even_with_a_status_200(self, failure):
        assert outcome(status=200, failure=failure) == Verdict("pending", retry_in=10)

    def test_neither_status_nor_failure_is_no_success(self):
        assert outcome().state == "pending"

    def test_410_fails_at_once_and_says_gone(self):
        assert outcome(status=410) == Verdict("failed", gone=True)
        assert outcome(status=410, failure=Failure.HTTP_4XX) == Verdict("failed", gone=True)

    def test_a_410_whose_response_was_cut_off_is_not_believed(self):
        assert outcome(status=410, failure=Failure.TIMEOUT) == Verdict("pending", retry_in=10)

    @pytest.mark.parametrize(
        ("attempts", "verdict"),
        [
            (0, Verdict("pending", retry_in=10)),
            (1, Verdict("pending", retry_in=10)),
            (2, Verdict("pending", retry_in=100)),
            (3, Verdict("failed")),
            (4, Verdict("failed")),
        ],
    )
    def test_the_schedule_ends_in_failed(self, attempts, verdict):
        assert outcome(status=500, attempts=attempts) == verdict

    def test_without_a_schedule_the_first_failure_is_final(self):
        assert outcome(status=500, schedule=()) == Verdict("failed")
        assert outcome(status=503, schedule=(), retry_after=5.0) == Verdict("failed")

    @pytest.mark.parametrize(("draw", "wait"), [(0.0, 100), (0.5, 110), (0.999, 119.98)])
    def test_jitter_adds_up_to_a_fifth(self, draw, wait):
        assert outcome(status=500, attempts=2, draw=draw).retry_in == pytest.approx(wait)

    @pytest.mark.parametrize(
        ("status", "hint", "wait"),
        [
            (429, None, 10),
            (429, 3.0, 10),
            (429, 60.0, 60),
            (503, 60.0, 60),
            (503, 90000.0, 86400),
            (500, 60.0, 10),
            (301, 60.0, 10),
        ],
    )
    def test_retry_after_can_only_lengthen_and_only_for_429_and_503(self, status, hint, wait):
        assert outcome(status=status, retry_after=hint).retry_in == wait

    @given(
        status=st.none() | st.integers(100, 999),
        failure=st.none() | st.sampled_from(Failure),
        attempts=st.integers(1, 12),
        hint=st.none() | st.floats(0, 1e9),
        draw=st.floats(0, 1, exclude_max=True),
    )
    def test_a_wait_is_given_exactly_when_pending_and_never_shorter_than_planned(
        self, status, failure, attempts, hint, draw
    ):
        verdict = decide(
            status=status,
            failure=failure,
            attempts=attempts,
            schedule=STANDARD,
            retry_after=hint,
            draw=draw,
        )

        assert (verdict.retry_in is not None) == (verdict.state == "pending")
        assert not (verdict.gone and verdict.state != "failed")
        if verdict.retry_in is not None:
            planned = STANDARD[attempts - 1]
            assert planned <= verdict.retry_in <= max(planned * 1.2, 86400)


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
