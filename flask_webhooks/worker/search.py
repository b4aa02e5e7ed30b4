"""When a worker looks for more lanes, and for how many: what one worker has taken, another cannot."""

from __future__ import annotations

import time

from .held_lane import Scheduler

__all__ = ["LaneSearch"]

FIRST, MORE, MOST = 16, 128, 512
"""Lanes that are taken at the first look, at any look, and held at most. Few at first: what one worker has taken
another cannot. Many in the end: those of receivers that hang are held, but do no work."""
OTHERS, GUESTS = 0.25, 16
"""Seconds between two looks, while there is enough to do, for owners of whom nothing is held, and lanes that are taken
then at most, also beyond `MOST`: else a new subscription would wait until a lane of another owner had its turn."""
LITTLE = 0.03
"""Share of the time that these looks take at most."""
GULP = 1.0
"""Seconds that the lanes of one look shall last: when they do not, the next takes twice as many."""
SOONEST, LATEST, SHARE = 0.02, 0.25, 0.2
"""Seconds between two looks for more lanes: so long that looking in vain takes a fifth of the time at most."""
ENOUGH = 200
"""Tasks that are ready to be sent, below which a worker looks for more lanes."""


class LaneSearch:
    """The pace of one run's looks.

    :param concurrency: sender threads of this process.
    """

    def __init__(self, scheduler: Scheduler, concurrency: int) -> None:
        self._scheduler, self._concurrency = scheduler, concurrency
        self._look_at = self._others_at = 0.0
        self._more, self._taken = FIRST, float("-inf")
        self.again = SOONEST
        """Seconds until the next look."""
        self.is_sated = False
        """Whether only lanes of owners of whom nothing is held are to be taken."""

    def room(self, held: int) -> int:
        """Return how many more lanes to take now; while some are held, only from time to time."""
        now = time.monotonic()
        if held and now < self._look_at:
            return 0
        # Before the look and not after it: a statement that takes long must not be followed by another at once.
        self._look_at = now + self.again
        room = min(self._more, MOST - held) if self._is_hungry() else 0
        self.is_sated = not room
        if room or now < self._others_at:
            return room
        return min(GUESTS, MOST + GUESTS - held)

    def is_room_left(self, held: int) -> bool:
        """Whether waiting lanes will be taken without another being given up."""
        return held < MOST and self._is_hungry()

    def look_at_once(self) -> None:
        """Do not wait with the next look."""
        self._look_at = 0.0

    def note(self, began: float, found: int, most: int) -> None:
        """Decide when to look again, and for how many, after a look that found so many of `most`."""
        took = time.monotonic() - began
        if self.is_sated:
            self._others_at = time.monotonic() + max(OTHERS, took / LITTLE)
        elif not found:
            self.again = min(LATEST, max(SOONEST, took / SHARE))
        else:
            self.again = SOONEST
            if found == most:
                self.look_at_once()  # there are more
            # Lanes that lasted less than a second were too few for the senders: twice as many next time.
            self._more = min(2 * self._more, MORE) if began - self._taken < GULP else FIRST
            self._taken = began

    def _is_hungry(self) -> bool:
        """Whether the senders could do more than the lanes at hand give them.

        Only what may start now counts, so that lanes that hang, wait for their rate or have used up their slots do not
        pass for work.
        """
        slots, tasks = self._scheduler.startable()
        # Half as many again as can be in flight, or there would be a gap at each turn; and enough for a good batch.
        return self._scheduler.in_flight + slots < 1.5 * self._concurrency or tasks < ENOUGH
