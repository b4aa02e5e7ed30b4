"""What commands begin with: the app's bundle, a session, and our errors as one line instead of a traceback."""

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
    """Return the bundle itself, not the proxy: threads and generators outlive the place where it is looked up."""
    return state_of(current_app._get_current_object())  # type: ignore[attr-defined]


def open_session(state: AppState) -> Session:
    """Return a session of our own, whose changes are no events."""
    return Session(state.own_engine, info={"webhooks": False}, expire_on_commit=False)


def database_fault(app: Flask, error: sa.exc.SQLAlchemyError) -> str | None:
    """Return in one sentence why the database did not respond, or None for a bug of ours.

    The database itself is asked, and not the error: each driver has words of its own for a table that is missing.
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
    """Return in one sentence why an app cannot be made whose `postgresql://` means another driver by now.

    It ends in `db.init_app`, before the extension is asked, so that a command is the only one to see it. Of a module
    that makes an app when it is imported, Flask reports by an error of its own.
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
    """Print what one of our errors says, and exit 1."""
    try:
        yield
    except WebhooksError as error:
        raise click.ClickException(str(error)) from error
