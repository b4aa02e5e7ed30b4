"""What people look at: statements that only read. Each takes an open connection or session; none writes.

The law of this room: nothing here counts or sorts the log. Every statement walks an index from its newest end and stops
at a limit, so a page costs the same with a thousand deliveries and with a million.

================  ===================================================
`log`             what is asked of the log, and several ranges of its indexes read together
`deliveries`      searches of the log: lines with their last attempt
`delivery_lists`  lists of deliveries, by the walk that tells most
`messages`        pages of messages, and where each went
`delivery`        one delivery with its message and every attempt
`subscriptions`   subscriptions with how their receivers are doing
`series`          sums over time, in as many points as a chart shows
`answers`         what a receiver answered, unpacked and decoded
`status`          workers, backlog, the worst receivers
`tail`            attempts as they are made
`bounds`          how much of what others wrote one answer shows
================  ===================================================
"""

from __future__ import annotations

from .answers import NOTES, Legible, legible, of_attempt
from .deliveries import LINE, LogLine, LogPage, search
from .delivery import DeliveryDetail, attempt_of, attempts_of, delivery_detail, delivery_of
from .delivery_lists import DeliveryList, goes_by_event, list_deliveries
from .log import LogQuery
from .messages import error_of, events_of, list_messages, message_of, outcomes
from .series import WINDOWS, Point, Series, series
from .status import EngineStatus, engine_status, has_worker
from .subscriptions import (
    Overview,
    SubscriptionStatus,
    ids_by_pattern,
    ids_with_log,
    lane_of,
    oldest_waiting,
    one_overview,
    overviews,
    owner_of,
    some_of,
    with_certificate,
    with_log,
)
from .tail import Tail

__all__ = [
    "LINE",
    "NOTES",
    "WINDOWS",
    "DeliveryDetail",
    "DeliveryList",
    "EngineStatus",
    "Legible",
    "LogLine",
    "LogPage",
    "LogQuery",
    "Overview",
    "Point",
    "Series",
    "SubscriptionStatus",
    "Tail",
    "attempt_of",
    "attempts_of",
    "delivery_detail",
    "delivery_of",
    "engine_status",
    "error_of",
    "events_of",
    "goes_by_event",
    "has_worker",
    "ids_by_pattern",
    "ids_with_log",
    "lane_of",
    "legible",
    "list_deliveries",
    "list_messages",
    "message_of",
    "of_attempt",
    "oldest_waiting",
    "one_overview",
    "outcomes",
    "overviews",
    "owner_of",
    "search",
    "series",
    "some_of",
    "with_certificate",
    "with_log",
]
