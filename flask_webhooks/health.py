"""The health of a receiver, and its consequence: none, a pause, or disabling the subscription. Pure functions.

Two mechanisms that must not be confused. The *breaker* is temporary: a subscription whose attempts mostly failed in the
last minutes is paused, then probed with one request, and each failed probe doubles the pause. *Disabling* lasts until
the owner acts: after many failures in a row and a long time without a success, or at once on 410.

Each finished attempt counts once; failures by a fault of our own do not count. A replay resends old events: it shows
whether the receiver works, so it counts for the breaker, but its failures never disable a subscription.
"""

from __future__ import annotations

import enum
import typing as t
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

__all__ = ["Breaker", "Health", "Reason", "after", "health_of", "why_paused"]


class Reason(enum.StrEnum):
    """Why we disabled a subscription."""

    GONE = "gone"
    """The receiver answered 410."""
    FAILING = "failing"
    """Too many failures in a row, over too long a time."""


@dataclass(frozen=True, slots=True)
class Breaker:
    """When a mostly failing subscription is paused, and for how long."""

    window: float = 120.0
    """Seconds over which attempts are counted."""
    minimum: int = 10
    """Attempts in the window without which the breaker does not open."""
    share: float = 0.9
    """The breaker opens if at least this share of the attempts failed."""
    pause: float = 30.0
    """Seconds of the first pause; each failed probe doubles the next one."""
    longest: float = 900.0
    """Seconds of the longest pause."""


@dataclass(frozen=True, slots=True)
class Health:
    """The health of one receiver, as in the columns of the same names in `Lane`."""

    failures: int = 0
    """Failed attempts since the last success."""
    failing_since: datetime | None = None
    """When the first of them ended."""
    succeeded_at: datetime | None = None
    paused_until: datetime | None = None
    """Nothing is sent before this instant; then one probe is."""
    pauses: int = 0
    """Pauses in a row."""
    window_at: datetime | None = None
    """Begin of the window of the two counts."""
    window_ok: int = 0
    window_failed: int = 0
    refusals: int = 0
    """Answers that asked to slow down since the last success; see `pace`."""
    paced_rate: float | None = None
    """Requests per second that the receiver accepts, as learnt at `paced_at`."""
    paced_at: datetime | None = None
    """When it last asked to slow down."""
    waits_for: str | None = None
    """Why its lane waits, if not for a due time: `receiver` asked to slow down, or `sender` has a fault of its own."""

    def is_paused(self, now: datetime) -> bool:
        """Whether the breaker is open."""
        return self.paused_until is not None and self.paused_until > now

    @property
    def is_suspect(self) -> bool:
        """Whether the last attempt failed."""
        return self.failures > 0

    @property
    def is_probed(self) -> bool:
        """Whether the next request is a probe: the receiver has not succeeded since its last pause."""
        return self.pauses > 0


def health_of(row: t.Any) -> Health:
    """Return the health from a row of the lanes table."""
    return Health(**{name: getattr(row, name) for name in Health.__dataclass_fields__})


def after(
    health: Health,
    *,
    ok: bool,
    now: datetime,
    breaker: Breaker | None,
    disable_after: tuple[int, timedelta] | None,
    is_replay: bool = False,
) -> tuple[Health, Reason | None]:
    """Return the health after an attempt that ended `now`, and the reason to disable the subscription if there is one.

    :param breaker: None: never pause.
    :param disable_after: failures in a row, and the time since the first of them; None: never disable.
    :param is_replay: the attempt belongs to a replay: its failure, also a 4xx, counts for the breaker only.
    """
    counted = _counted(health, breaker, now)
    if counted.waits_for is not None:
        counted = replace(counted, waits_for=None)
    if ok:
        return _succeeded(counted, now), None
    failed = replace(counted, window_failed=counted.window_failed + 1)
    if not is_replay:
        failed = replace(failed, failures=failed.failures + 1, failing_since=failed.failing_since or now)
        if disable_after is not None and _is_hopeless(failed, now, *disable_after):
            return failed, Reason.FAILING
    if breaker is not None and _opens(failed, breaker, now):
        pause = min(breaker.pause * 2**failed.pauses, breaker.longest)
        until = now + timedelta(seconds=pause)
        return replace(failed, paused_until=until, pauses=min(failed.pauses + 1, 32)), None
    return failed, None


def _succeeded(health: Health, now: datetime) -> Health:
    if health.is_probed:  # the probe succeeded: forget the failures that opened the breaker
        health = replace(health, window_at=now, window_ok=0, window_failed=0)
    return Health(
        succeeded_at=now,
        paced_rate=health.paced_rate,
        paced_at=health.paced_at,
        window_at=health.window_at,
        window_ok=health.window_ok + 1,
        window_failed=health.window_failed,
    )


def why_paused(health: Health, breaker: Breaker) -> str:
    """Return in one sentence why the breaker is open; its counts do not change while it is."""
    if health.pauses > 1:
        probes = health.pauses - 1
        return "The probe after the pause failed." if probes == 1 else f"{probes} probes in a row failed."
    attempts, minutes = health.window_ok + health.window_failed, breaker.window / 60
    return f"{health.window_failed} of {attempts} attempts failed within {minutes:.3g} minutes."


def _counted(health: Health, breaker: Breaker | None, now: datetime) -> Health:
    """Start a new window when the old one has passed, with half of its counts.

    Half, and not zero: a receiver that takes 15 seconds to fail has eight failures in two minutes, and would never
    reach ten if each window started at zero.
    """
    length = timedelta(seconds=breaker.window if breaker else 120)
    if health.window_at is not None and timedelta(0) <= now - health.window_at <= length:
        return health
    is_next = health.window_at is not None and timedelta(0) <= now - health.window_at <= 2 * length
    ok, failed = (health.window_ok // 2, health.window_failed // 2) if is_next else (0, 0)
    return replace(health, window_at=now, window_ok=ok, window_failed=failed)


def _is_hopeless(health: Health, now: datetime, most: int, silence: timedelta) -> bool:
    """Whether it has failed often enough and for long enough.

    Twenty failures within one bad minute are not enough, even if the last success is days ago because there was nothing
    to send: the time counts from the first failure. The last success is always before that.
    """
    since = health.failing_since or now
    return health.failures >= most and now - since >= silence


def _opens(health: Health, breaker: Breaker, now: datetime) -> bool:
    if health.paused_until is not None and health.paused_until > now:
        return False  # this attempt was in flight when the breaker opened
    if health.is_probed:
        return True
    attempts = health.window_ok + health.window_failed
    return attempts >= breaker.minimum and health.window_failed >= breaker.share * attempts
