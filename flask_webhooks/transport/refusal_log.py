"""Logs for the operator what the guard refused: name, address and rule. The owner sees one constant text.

The law of this room: each name is logged once per `QUIET` seconds, so that neither retries nor a customer who probes
a range of addresses can fill the log.
"""

from __future__ import annotations

import logging
import threading
import time
import typing as t
from collections import OrderedDict
from collections.abc import Callable

from ..errors import AddressRefusedError

__all__ = ["QUIET", "Refusals"]

logger = logging.getLogger("flask_webhooks.transport")

QUIET: t.Final = 60.0
"""Seconds in which a name that has been logged is not logged again."""

MOST_NAMES: t.Final = 1024
"""Names that are remembered; those logged longest ago are dropped first."""


class Refusals:
    """Logs refusals; safe to share between threads.

    :param clock: returns seconds, like `time.monotonic`.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._logged_at: OrderedDict[str, float] = OrderedDict()

    def log(self, refusal: AddressRefusedError) -> None:
        """Log the warning `address.refused`, unless this name was logged within `QUIET` seconds."""
        if self._is_news(refusal.host):
            extra = {"host": refusal.host, "address": refusal.address, "rule": refusal.rule}
            logger.warning("address.refused", extra=extra)

    def _is_news(self, host: str) -> bool:
        now = self._clock()
        with self._lock:
            last = self._logged_at.get(host)
            if last is not None and now - last < QUIET:
                return False
            self._logged_at[host] = now
            self._logged_at.move_to_end(host)
            if len(self._logged_at) > MOST_NAMES:
                self._logged_at.popitem(last=False)
        return True
