"""Statements that only read, for API, console and command line. Each takes an open connection or session.

The law of this room: no statement counts or sorts the log. Each walks an index from its newest end and stops at a
limit, so a page costs the same with a thousand deliveries and with a million.

================  ===================================================
`log`             filters of the log, and several ranges of its indexes merged
`deliveries`      the console's search of the log: lines with their last attempt
`delivery_lists`  the API's lists of deliveries, by the most selective index
`messages`        pages of messages, and the outcome of each by subscription
`delivery`        one delivery with its message and every attempt
`subscriptions`   subscriptions with the health of their receivers
`series`          sums over time, in as many points as a chart shows
`answers`         the body of a response, decompressed and decoded
`status`          workers, backlog, the worst receivers
`tail`            new attempts, read again and again
`bounds`          limits of what one answer shows of texts of receivers and customers
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
