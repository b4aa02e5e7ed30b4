"""One authenticated request, as the views of both doors get it, and the session that it runs in.

Each door adds its own input: the API a body, a query and a version, the console a form and a query.
"""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, field

from sqlalchemy.orm import Session

from ..principal import Principal, Whose
from ..sql.transactions import repeated
from ..state import AppState, current_webhooks

__all__ = ["RequestContext", "current_state", "run_in_session", "version_of"]

T = t.TypeVar("T")
_VERSION = re.compile(r"[1-9][0-9]{0,17}")  # more digits than `int` would read are no version of ours


@dataclass(frozen=True)
class RequestContext:
    """One request of an authenticated caller."""

    state: AppState
    principal: Principal
    session: Session = field(repr=False)
    """A session of our own, without objects of the host; it is committed after the view has returned."""

    @property
    def owner(self) -> Whose:
        """The owner whose rows the caller may see, or all owners."""
        return self.principal.sees

    @property
    def account(self) -> str:
        """The name under which the caller's idempotency keys and rates are counted."""
        return self.principal.account


def version_of(text: str) -> int:
    """Return the version of a subscription that a client has read; -1, which none has, for any other text."""
    return int(text) if _VERSION.fullmatch(text) else -1


def current_state() -> AppState:
    """Return the state of the app that handles the request: not the proxy, which works in this thread only."""
    return t.cast("AppState", current_webhooks._get_current_object())  # type: ignore[attr-defined]


def run_in_session(state: AppState, work: t.Callable[[Session], T]) -> T:
    """Run `work` in a session of our own, which it commits; repeat it after a conflict (see `sql.transactions`).

    The host's transaction, in which it has authenticated the caller, is ended first: it holds a connection, and with a
    second one for each request a small pool could be exhausted by requests that wait for each other.
    """
    state.end_host_transaction()
    return repeated(state.own_engine, work)
