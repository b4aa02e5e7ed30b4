"""What is asked of the log: one description for API, console and command line, and the ranges of ids in it.

Ids are made in the order of time, so a time is an id, and "the page after this one" is "ids below the last one": new
rows come before it and move nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from ..ids import first_at
from ..principal import ALL_OWNERS, Whose

__all__ = ["LogQuery"]


@dataclass(frozen=True)
class LogQuery:
    """Filters, and where the page is; empty means any."""

    owner: Whose = ALL_OWNERS
    """Whose."""
    subscriptions: tuple[str, ...] | None = None
    """Ids of those whose deliveries are looked through; None for all there are, which is for operators."""
    message: str = ""
    """The id of the message that deliveries are of."""
    environment: str = ""
    state: str = ""
    """One of `State`."""
    event: str = ""
    """An event type, or `invoices.*`."""
    names: tuple[str, ...] | None = None
    """The event types that this stands for in the catalogue; None: all."""
    since: datetime | None = None
    until: datetime | None = None
    status: str = ""
    """`2xx` to `5xx`, a number, or `none`: no answer."""
    text: str = ""
    """Part of the id of a delivery or of its message."""
    before: str = ""
    """Where the page begins: only what is older than this."""
    anchor: str = ""
    """Only this id and newer ones."""

    @property
    def least(self) -> str:
        """The least id that the time and the anchor leave."""
        return max(self.anchor, first_at(self.since) if self.since else "")

    @property
    def limit(self) -> str | None:
        """The first id that the time leaves no more; None: there is none."""
        return first_at(self.until) if self.until else None

    @property
    def below(self) -> str | None:
        """The first id that is too large for this page; None: there is none."""
        return min(filter(None, (self.limit, self.before)), default=None)

    @property
    def is_narrow(self) -> bool:
        """Whether it has a filter that no index answers; over all subscriptions none answers the state."""
        return bool(self.event or self.status or self.text or (self.state and self.subscriptions is None))
