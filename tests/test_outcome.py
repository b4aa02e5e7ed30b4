from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flask_webhooks.outcome import Failure, Verdict, decide
from flask_webhooks.retry import STANDARD

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
HOUR = 3600


def outcome(**given: object) -> Verdict:
    """Decide on a first attempt with the schedule 10 s, 100 s and no jitter, unless `changes` say otherwise."""
    facts = {"status": None, "failure": None, "attempts": 1, "schedule": (10.0, 100.0), "draw": 0.0}
    return decide(**{**facts, **given})  # type: ignore[arg-type]


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
