"""Who is calling, and in whose session: one authenticated request, as the views of both doors see it.

Each door adds what it has read: the API a body, a query and a version, the console a form and a query.
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
    """One request of a caller who has been let in."""

    state: AppState
    principal: Principal
    session: Session = field(repr=False)
    """Our own, with nothing of the host's in it; committed when the view has returned."""

    @property
    def owner(self) -> Whose:
        """Whose rows the caller may see."""
        return self.principal.sees

    @property
    def account(self) -> str:
        """What the caller's own keys and turns are kept under."""
        return self.principal.account


def version_of(text: str) -> int:
    """Return the version of a subscription that a client has seen; -1, which none has, for what is no version."""
    return int(text) if _VERSION.fullmatch(text) else -1


def current_state() -> AppState:
    """Return the bundle of the app that handles the request: itself, for it goes into other threads and sessions."""
    return t.cast("AppState", current_webhooks._get_current_object())  # type: ignore[attr-defined]


def run_in_session(state: AppState, work: t.Callable[[Session], T]) -> T:
    """Answer a request in a session of our own, which `work` commits; again if the database refuses that.

    The transaction in which the host has found out who is calling is ended first: it holds a connection, and we are
    about to take another one.
    """
    state.end_host_transaction()
    return repeated(state.own_engine, work)
