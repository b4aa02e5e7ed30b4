"""How a receiver is doing, and what follows: nothing, a pause, or being switched off. Pure functions.

Two mechanisms that must not be confused. The *breaker* is temporary: a subscription that mostly fails in the last
minutes is paused, then probed with one request, and each failed probe doubles the pause. *Disabling* lasts until the
owner acts: after so many failures in a row and so long without a success, or at once on 410.

Only attempts that ended count, each once; what failed by our own fault does not count. A replay repeats what is past:
it says whether the receiver is there, so it counts for the breaker, but its failures disable nothing.
"""

from __future__ import annotations

import enum
import typing as t
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

__all__ = ["Breaker", "Health", "Reason", "after", "health_of", "why_paused"]


class Reason(enum.StrEnum):
    """Why we switched a subscription off."""

    GONE = "gone"
    """The receiver answered 410."""
    FAILING = "failing"
    """Too many failures in a row, for too long."""


@dataclass(frozen=True, slots=True)
class Breaker:
    """When a mostly failing subscription is paused, and for how long."""

    window: float = 120.0
    """Seconds of attempts that are looked at."""
    minimum: int = 10
    """Attempts in the window below which nothing is decided."""
    share: float = 0.9
    """Failed attempts divided by all, from which on the breaker opens."""
    pause: float = 30.0
    """Seconds of the first pause; each pause that follows a failed probe is twice as long."""
    longest: float = 900.0
    """Seconds that a pause may grow to."""


@dataclass(frozen=True, slots=True)
class Health:
    """What is known of one receiver; the columns of the same names in `Lane`."""

    failures: int = 0
    """Attempts in a row that failed."""
    failing_since: datetime | None = None
    """When the first of them ended."""
    succeeded_at: datetime | None = None
    paused_until: datetime | None = None
    """Nothing is sent before; then one probe."""
    pauses: int = 0
    """Pauses in a row."""
    window_at: datetime | None = None
    """Since when the two counts run."""
    window_ok: int = 0
    window_failed: int = 0
    refusals: int = 0
    """Requests to slow down since the last success; see `pace`."""
    paced_rate: float | None = None
    """Requests a second that were learnt to be taken, at `paced_at`."""
    paced_at: datetime | None = None
    """When it last asked to slow down."""
    waits_for: str | None = None
    """What its lane waits for beside time: `receiver`, which asks to slow down, or `sender`, a fault of ours."""

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
    """Return what a row of the lanes tells."""
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
    """Return the health after an attempt that ended `now`, and the reason to disable if there is one.

    :param is_replay: it repeats what is past: its failure, a 4xx too, counts for the breaker only.
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
    if health.is_probed:  # what opened the breaker is past
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
    """Say in one sentence why the breaker is open: while it is, what it has counted stays."""
    if health.pauses > 1:
        probes = health.pauses - 1
        return "The probe after the pause failed." if probes == 1 else f"{probes} probes in a row failed."
    attempts, minutes = health.window_ok + health.window_failed, breaker.window / 60
    return f"{health.window_failed} of {attempts} attempts failed within {minutes:.3g} minutes."


def _counted(health: Health, breaker: Breaker | None, now: datetime) -> Health:
    """Begin a new window when the old one has passed, with half of what that had.

    Half, and not nothing: a receiver that takes 15 seconds to fail gives eight failures in two minutes, and would
    never come to ten if each window began at nothing.
    """
    length = timedelta(seconds=breaker.window if breaker else 120)
    if health.window_at is not None and timedelta(0) <= now - health.window_at <= length:
        return health
    is_next = health.window_at is not None and timedelta(0) <= now - health.window_at <= 2 * length
    ok, failed = (health.window_ok // 2, health.window_failed // 2) if is_next else (0, 0)
    return replace(health, window_at=now, window_ok=ok, window_failed=failed)


def _is_hopeless(health: Health, now: datetime, most: int, silence: timedelta) -> bool:
    """Whether it has failed for so long, and not merely been idle: twenty events in one bad minute are no three days.

    The last success is always before `failing_since`, so it is at least as long ago.
    """
    since = health.failing_since or now
    return health.failures >= most and now - since >= silence


def _opens(health: Health, breaker: Breaker, now: datetime) -> bool:
    if health.paused_until is not None and health.paused_until > now:
        return False  # an attempt that was under way when the breaker opened
    if health.is_probed:
        return True
    attempts = health.window_ok + health.window_failed
    return attempts >= breaker.minimum and health.window_failed >= breaker.share * attempts
