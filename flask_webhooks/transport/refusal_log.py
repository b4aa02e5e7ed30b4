"""What the guard refused, told to the operator: name, address and rule. The owner sees one constant text.

The law of this room: each name is told once a while, whoever asks for it and however often, so that neither a retry
nor a customer who tries a range fills the log.
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
"""Seconds in which a name that has been told is not told again."""

MOST_NAMES: t.Final = 1024
"""Names that are remembered, the ones told last."""


class Refusals:
    """Tells refusals; safe to share between threads.

    :param clock: seconds, like `time.monotonic`.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._told: OrderedDict[str, float] = OrderedDict()

    def tell(self, refusal: AddressRefusedError) -> None:
        """Warn `address.refused`, unless this name has been told just now."""
        if self._is_news(refusal.host):
            extra = {"host": refusal.host, "address": refusal.address, "rule": refusal.rule}
            logger.warning("address.refused", extra=extra)

    def _is_news(self, host: str) -> bool:
        now = self._clock()
        with self._lock:
            last = self._told.get(host)
            if last is not None and now - last < QUIET:
                return False
            self._told[host] = now
            self._told.move_to_end(host)
            if len(self._told) > MOST_NAMES:
                self._told.popitem(last=False)
        return True
