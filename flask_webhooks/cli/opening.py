"""What commands begin with: the app's bundle, a session, and our errors as one line instead of a traceback."""

from __future__ import annotations

import contextlib
import typing as t

import click
import sqlalchemy as sa
from flask import Flask, current_app
from sqlalchemy.orm import Session

from .. import checking
from ..delivering import TROUBLE
from ..errors import WebhooksError
from ..state import AppState, state_of

__all__ = ["database_fault", "open_session", "open_state", "refusals"]


def open_state() -> AppState:
    """Return the bundle itself, not the proxy: threads and generators outlive the place where it is looked up."""
    return state_of(current_app._get_current_object())  # type: ignore[attr-defined]


def open_session(state: AppState) -> Session:
    """Return a session of our own, whose changes are no events."""
    return Session(state.own_engine, info={"webhooks": False}, expire_on_commit=False)


def database_fault(app: Flask, error: sa.exc.SQLAlchemyError) -> str | None:
    """Return in one sentence why the database did not answer, or None for a mistake of ours.

    The database itself is asked, and not the error: each driver has words of its own for a table that is missing.
    """
    with app.app_context():
        check = checking.check_database(state_of(app).engine)
    fault = next((each for each in check.findings if each.level is checking.Level.ERROR), None)
    if fault is not None:
        return f"The database is not ready. {fault.message}"
    if not isinstance(error, TROUBLE):
        return None
    reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
    return f"The database did not answer: {reason}. Try again."


@contextlib.contextmanager
def refusals() -> t.Iterator[None]:
    """Print what one of our errors says, and exit 1."""
    try:
        yield
    except WebhooksError as error:
        raise click.ClickException(str(error)) from error
