"""What people look at: statements that only read. Each takes an open connection or session; none writes.

The law of this room: nothing here counts or sorts the log. Every statement walks an index from its newest end and stops
at a limit, so a page costs the same with a thousand deliveries and with a million.

===============  ==================================================
`subscriptions`  subscriptions with how their receivers are doing
`charts`         sums over time, in as many points as a chart shows
`deliveries`     pages of the log, filtered
`delivery`       one delivery with its message and every attempt
`answers`        what a receiver answered, unpacked and decoded
`status`         workers, backlog, the worst receivers
`tail`           attempts as they are made
===============  ==================================================
"""

from __future__ import annotations

from .answers import NOTES, Legible, attempt_of, legible, of_attempt
from .charts import WINDOWS, Point, Series, series
from .deliveries import Entry, Search, Slice, search
from .delivery import DeliveryDetail, attempts_of, story
from .status import EngineStatus, engine, is_worked
from .subscriptions import Overview, SubscriptionStatus, one_overview, overviews
from .tail import Tail

__all__ = [
    "NOTES",
    "WINDOWS",
    "DeliveryDetail",
    "EngineStatus",
    "Entry",
    "Legible",
    "Overview",
    "Point",
    "Search",
    "Series",
    "Slice",
    "SubscriptionStatus",
    "Tail",
    "attempt_of",
    "attempts_of",
    "engine",
    "is_worked",
    "legible",
    "of_attempt",
    "one_overview",
    "overviews",
    "search",
    "series",
    "story",
]
