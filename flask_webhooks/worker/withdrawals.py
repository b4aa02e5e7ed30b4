"""Deliveries that are not to be sent any more: of subscriptions that are off, and of events that are not listened to.

Both are written in transactions of their own: there may be any number of them, and what is under way does not wait.
"""

from __future__ import annotations

import logging
import typing as t
from datetime import datetime

from .. import outbox
from ..outbox import Lease
from .outage import TRANSIENT_ERRORS, is_cut_short

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["Withdrawals"]

logger = logging.getLogger("flask_webhooks.delivering")

DESELECTED = "deselected"
"""The reason of a delivery that is cancelled because its subscription does not listen to the event any more."""


class Withdrawals:
    """What one run has found to withdraw.

    :param held: by their keys the lanes that the worker holds.
    :param lease: returns the worker's lease.
    """

    def __init__(
        self,
        state: AppState,
        held: t.Container[str],
        lease: t.Callable[[], Lease],
        clock: t.Callable[[], datetime],
    ) -> None:
        self._state, self._held, self._lease, self._clock = state, held, lease, clock
        self.switched_off: list[str] = []
        """Lanes that are switched off, of which something may be left to be held."""
        self._deselected: list[outbox.Row] = []
        self._portion = outbox.PORTION

    def switch_off(self, key: str) -> None:
        """Have `write` hold what is pending for a lane whose subscription is off."""
        if key not in self.switched_off:
            self.switched_off.append(key)

    def deselect(self, delivery: str, due_at: datetime | None, attempts: int) -> None:
        """Have `write` cancel a delivery, unless it is moved before."""
        off = {"next_state": "cancelled", "next_due": None, "why": DESELECTED, "sent": None}
        row = {"delivery": delivery, "was_due": due_at, "made": attempts, "ended": self._clock(), **off}
        self._deselected.append(row)

    def write(self) -> None:
        """Cancel and hold what was found: of each kind a portion at a time."""
        if self._deselected:
            with self._state.own_engine.begin() as connection:
                outbox.reschedule(connection, self._deselected)
            logger.info("deliveries.deselected", extra={"deliveries": len(self._deselected)})
            self._deselected = []
        # One portion for all lanes of this call: a subscription with a million of them must not stop the others.
        left = self._portion
        while self.switched_off and left > 0:
            left -= self._hold(self.switched_off[0], left)

    def _hold(self, key: str, most: int) -> int:
        """Hold up to so many deliveries of a lane; give it back when nothing is left. Return how many there were."""
        try:
            with self._state.own_engine.begin() as connection:
                # While something is left the lane stays leased, or every look of every worker would find it.
                found = outbox.reconcile(connection, key, self._clock(), most)
                if found < most and key not in self._held:
                    outbox.give_back(connection, self._lease(), [key])
        except TRANSIENT_ERRORS as error:
            if not is_cut_short(error) or self._portion == 1:
                raise
            # The database had no time for so many at once. The same number would be cut short again, for ever.
            self._portion //= 2
            return most
        self.switched_off.remove(key)
        if found == most:
            self.switched_off.append(key)  # the next has its turn
        return found
