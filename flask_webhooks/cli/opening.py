"""What commands begin with: the app's bundle, a session, and our errors as one line instead of a traceback."""

from __future__ import annotations

import contextlib
import typing as t

import click
from flask import current_app
from sqlalchemy.orm import Session

from ..errors import WebhooksError
from ..state import AppState, state_of

__all__ = ["open_session", "open_state", "refusals"]


def open_state() -> AppState:
    """Return the bundle itself, not the proxy: threads and generators outlive the place where it is looked up."""
    return state_of(current_app._get_current_object())  # type: ignore[attr-defined]


def open_session(state: AppState) -> Session:
    """Return a session of our own, whose changes are no events."""
    return Session(state.own_engine, info={"webhooks": False}, expire_on_commit=False)


@contextlib.contextmanager
def refusals() -> t.Iterator[None]:
    """Print what one of our errors says, and exit 1."""
    try:
        yield
    except WebhooksError as error:
        raise click.ClickException(str(error)) from error
