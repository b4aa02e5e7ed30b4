"""What commands share: the app's state, a session, and errors as one line instead of a traceback."""

from __future__ import annotations

import contextlib
import typing as t
from importlib.util import find_spec

import click
import sqlalchemy as sa
from flask import Flask, current_app
from sqlalchemy.orm import Session

from .. import checks
from ..errors import WebhooksError
from ..state import AppState, state_of
from ..worker import TRANSIENT_ERRORS

__all__ = ["database_fault", "driver_fault", "open_session", "open_state", "refusals"]


def open_state() -> AppState:
    """Return the state itself, not the proxy: threads and generators use it after the app context has ended."""
    return state_of(current_app._get_current_object())  # type: ignore[attr-defined]


def open_session(state: AppState) -> Session:
    """Return a session of our own, whose changes are not captured as events."""
    return Session(state.own_engine, info={"webhooks": False}, expire_on_commit=False)


def database_fault(app: Flask, error: sa.exc.SQLAlchemyError) -> str | None:
    """Return in one sentence why the database did not respond, or None for a bug of ours.

    It checks the database instead of reading the error: each driver words a missing table differently.
    """
    with app.app_context():
        check = checks.check_database(state_of(app).engine)
    fault = next((each for each in check.findings if each.level is checks.Level.ERROR), None)
    if fault is not None:
        return f"The database is not ready. {fault.message}"
    if not isinstance(error, TRANSIENT_ERRORS):
        return None
    reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
    return f"The database did not respond: {reason}. Try again."


def driver_fault(error: BaseException) -> str | None:
    """Return in one sentence why an app fails whose `postgresql://` means another driver since SQLAlchemy 2.1.

    The app fails in `db.init_app`, before the extension's own code runs, so only a command can explain it. If a module
    creates the app at import, Flask wraps the error in one of its own: therefore `__context__`.
    """
    for each in (error, error.__context__):
        if isinstance(each, ModuleNotFoundError) and each.name == "psycopg":
            is_new = sa.make_url("postgresql://").get_driver_name() == "psycopg"
            if is_new and find_spec("psycopg2") is not None:
                return (
                    f"SQLAlchemy {sa.__version__} takes postgresql:// for psycopg 3, which is not installed; psycopg2 "
                    'is. Write postgresql+psycopg2:// in SQLALCHEMY_DATABASE_URI, or pip install "psycopg[binary]", '
                    "or hold sqlalchemy<2.1."
                )
    return None


@contextlib.contextmanager
def refusals() -> t.Iterator[None]:
    """Print the message of an error of ours, and exit with code 1."""
    try:
        yield
    except WebhooksError as error:
        raise click.ClickException(str(error)) from error
