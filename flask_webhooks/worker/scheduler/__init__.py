"""Whose turn is it? The fair order in which one worker process sends to its destinations.

The law of this room: a structure in memory and nothing else. No I/O; time is a parameter (monotonic seconds);
one lock around everything, held for microseconds.

A *lane* is one destination with its waiting items. The rules:

1.  Owners take turns, and so do the lanes of each that may send: one item each.
2.  At most `cap` items of a lane are in flight.
3.  A lane earns its slots. It begins with 2, one whose last attempt failed with 1; a success doubles them up to
    `cap`, a failure halves them, a failure to reach the destination leaves 1.
4.  A lane is *on probation* until it has succeeded quickly in this run, and again whenever its last attempt was
    slow or did not reach the destination. All lanes on probation together hold at most `slow_share` of the
    process's slots, and *suspect* ones three quarters of that: dead or dripping destinations can never take every
    thread, and however many there are, a new one does not wait behind them. (Lanes that slow down while they hold
    slots may exceed the share until those attempts end; they get no new ones meanwhile.)
    An owner that holds none of these slots gets one beyond the share while an eighth of the threads is left, so that a
    new subscription does not wait for those of others either. An attempt need not end to be slow: see `suspect`.
5.  A lane whose lease ends before a whole attempt could does not start one.
6.  A lane with a rate keeps its distance between two starts, and one that has to wait (`hold`) starts nothing. Late
    turns are made up for, unless the lane is *even*.

Nothing scans all lanes: each that waits stands in exactly one of the `places`.

===========  ================================================
`lane`       one destination, and what it has earned
`turns`      lanes in a row: owners take turns
`places`     where lanes wait, and the share of the slow ones
`scheduler`  the lock around all of this
===========  ================================================
"""

from __future__ import annotations

from .lane import Lane, Probation
from .scheduler import FairScheduler

__all__ = ["FairScheduler", "Lane", "Probation"]
