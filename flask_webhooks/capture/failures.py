"""What becomes of an event that cannot be made into a message, and the sentence that says why."""

from __future__ import annotations

import logging
import typing as t

import sqlalchemy as sa
from sqlalchemy import inspect

from ..catalog import EventType
from ..errors import EmitError, PayloadError
from ..outbox import recording
from ..visible import printable
from . import guard, host_code

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = [
    "LONGEST",
    "REMEDY",
    "about_of",
    "check_fits",
    "fail_or_log",
    "name_of",
    "named_error",
    "on_error_of",
    "storable",
    "unserialisable",
]

LONGEST, LONGEST_DEDUPE_KEY = 255, 200
"""Characters that the columns of keys and states hold; see `models.log`."""
LONGEST_ERROR = 10_000
"""Characters that are kept of an error: MariaDB's column holds 65,535 bytes."""

logger = logging.getLogger("flask_webhooks.capture")


def on_error_of(state: AppState, event: EventType) -> str:
    """Return what happens to an event that cannot be made into a message: as the channel says, else the app."""
    return state.catalog.channels[event.channel].on_error or state.settings.on_error


def fail_or_log(state: AppState, event: EventType, obj: t.Any, error: Exception) -> str | None:
    """Do what the channel or `WEBHOOKS_ON_ERROR` says; return what was wrong if it is to be recorded as broken.

    An error of the database itself fails the commit, unless it came to a schema that was reading behind a savepoint:
    PostgreSQL takes nothing more in that transaction.

    :raises EmitError: names the event, the object and, if marshmallow fails at one, the field.
    """
    if isinstance(error, sa.exc.DBAPIError) and not guard.is_survived(error):
        raise error
    about = about_of(event, obj)
    on_error = on_error_of(state, event)
    # The commit goes through and the event is lost: the log has the traceback.
    if on_error == "log":
        extra = {"event": event.name, "object": about}
        logger.error("message.failed: %s", storable(about), exc_info=printable(error), extra=extra)
        return None
    named = named_error(state, event, obj, error)
    if on_error == "raise":
        raise named from (None if named is error else error)
    # The remedy is for whoever sees the exception; a broken message is repaired by the command that shows this.
    reason = storable(str(named).replace(REMEDY, ""))
    extra = {"event": event.name, "object": about}
    logger.error("message.broken: %s", reason, exc_info=printable(error), extra=extra)
    return reason


def named_error(state: AppState, event: EventType, obj: t.Any, error: Exception) -> EmitError:
    about = about_of(event, obj)
    if isinstance(error, PayloadError):
        return PayloadError(f"{about}: {error}")
    # It names object and field already.
    if isinstance(error, EmitError):
        return error
    field = host_code.at_field(state.bound[event.channel].schemas.get(event.name), obj)
    return PayloadError(unserialisable(about, field, error))


def about_of(event: EventType, obj: t.Any) -> str:
    return f"{event.name} of {name_of(obj)}" if obj is not None else event.name


def name_of(obj: t.Any) -> str:
    """Name an object in an error. Nothing is loaded for it: its row may be what is missing."""
    state = inspect(obj)
    mapper = state.mapper
    key = state.identity or [
        state.dict.get(mapper.get_property_by_column(column).key) for column in mapper.primary_key
    ]
    return f"{type(obj).__name__} {','.join(map(str, key))}"


def unserialisable(about: str, field: str, error: Exception) -> str:
    return f"{about} cannot be serialised{field}: {_said(error)}.{REMEDY}"


def _said(error: Exception) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:  # whatever the host's error makes of itself
        return type(error).__name__


REMEDY = (
    ' Mend its schema, or set WEBHOOKS_ON_ERROR = "record" to let the commit through and keep the event until '
    "`flask webhooks repair`."
)


def check_fits(event: EventType, obj: t.Any, field: str, value: str | None) -> None:
    """Refuse what our columns cannot hold; some databases would say so without a name, and some not at all.

    :raises EmitError: names the event, the object if there is one, and the field.
    """
    longest = LONGEST_DEDUPE_KEY if field == "dedupe_key" else LONGEST
    # The usual case without a second look at each character.
    if value is None or (len(value) <= longest and value.isascii() and "\0" not in value):
        return
    if len(value) > longest:
        raise EmitError(
            f"{about_of(event, obj)}: the {field} has {len(value)} characters, the most is {longest}. Use a shorter "
            "one, or a hash of it."
        )
    if not recording.is_text(value):
        raise EmitError(
            f"{about_of(event, obj)}: the {field} {value!r} is no text that every database can hold. Take out NUL "
            "characters and halves of surrogate pairs."
        )


def storable(error: str) -> str:
    """Return an error as every database takes it: a host's own may show NUL characters or halves of surrogate pairs."""
    text = error.encode(errors="backslashreplace").decode().replace("\0", "\\x00")
    return text if len(text) <= LONGEST_ERROR else f"{text[: LONGEST_ERROR - 1]}…"
