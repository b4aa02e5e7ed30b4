"""Idempotency: a repeated request, or a repeated form of the console, with the same key does nothing again.

The table stores the ids of what the first request made, and not its answer. The answer to a repetition is made from the
present rows: so the table stays small and contains no secrets. The ids are committed together with what the request
did, so there is never one without the other. Of two simultaneous requests with one key the primary key lets one
commit, and the other is rolled back. What no rollback undoes, such as a test request, reserves its key first; the
second request is then refused while the first is under way.

Keys live for 24 hours, and an owner can have a limited number of them. Only successes are stored: a refused request has
changed nothing, and may be tried again.
"""

from __future__ import annotations

import json
import typing as t
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from flask import Response

from .. import throttle
from ..errors import ErrorText, ThrottledError
from ..models import IdempotentReply
from ..signing import place_of
from .context import RequestContext
from .problems import Refused

__all__ = ["First", "Slot", "begin", "keep", "take"]

LIFE = timedelta(hours=24)
RESERVATION_LIFE = timedelta(minutes=5)
"""Life of a reserved key without an answer: its process must have died, so the key becomes free."""
RESERVED = 0
"""The status of a key whose request is under way."""

Made = t.Sequence[str]
"""Ids of what a request has made."""


@dataclass(frozen=True)
class First:
    """The answer to the first request with a key."""

    status: int
    made: Made
    answer: Response | None = field(default=None, repr=False)
    """The whole answer, which versions stored that did not store ids."""


@dataclass
class Slot:
    """The key of one request: used before, or to be stored. As a context manager it frees a reservation on failure."""

    context: RequestContext
    key: str
    digest: str
    """Digest of the whole request: another request with the same key is refused."""
    is_limited: bool
    """Whether the key counts among the limited number of keys of an owner."""
    first: First | None = None
    """The answer to the first request with this key; None: this is the first one."""
    reserved_at: datetime | None = None
    """None: not reserved; `commit` finds out whether another request was first."""

    def __enter__(self) -> Slot:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Free a reserved key if the view has raised."""
        if kind is not None and self.reserved_at is not None:
            self.context.session.rollback()
            self._execute(sa.delete(IdempotentReply))
            self.context.session.commit()

    def reserve(self) -> None:
        """Reserve the key for this request.

        :raises Refused: another request has it.
        """
        self.reserved_at = datetime.now(UTC)
        session = self.context.session
        self._check_limit_locked()
        session.add(_row(self.context, self.key, self.digest, RESERVED, "", self.reserved_at))
        try:
            session.commit()
        except sa.exc.IntegrityError:
            session.rollback()
            raise _under_way() from None

    def commit(self, status: int, made: Made) -> First | None:
        """Store the ids and commit; if another request was first, roll back and return the answer to that."""
        session, now, text = self.context.session, datetime.now(UTC), json.dumps(made)
        if self.reserved_at is not None:
            self._execute(sa.update(IdempotentReply).values(status=status, sealed=text, created_at=now))
            session.commit()
            return None
        session.flush()
        self._check_limit_locked()
        try:
            session.add(_row(self.context, self.key, self.digest, status, text, now))
            session.commit()
        except sa.exc.IntegrityError:
            session.rollback()
            first = _find(self.context, self.key, self.digest)
            if first is None:
                raise
            return first
        return None

    def _check_limit_locked(self) -> None:
        """Check the limit again under a lock, which the requests of an owner take one after the other.

        :raises ThrottledError: other requests have reached the limit meanwhile.
        """
        if self.is_limited:
            throttle.lock(self.context.session, self.context.account, "keys")
            _check_limit(self.context, besides=self.key)

    def _execute(self, statement: t.Any) -> None:
        """Execute a statement on the reservation, unless it has expired and another request has taken the key."""
        mine = statement.where(
            *_of_key(self.context, self.key),
            IdempotentReply.status == RESERVED,
            IdempotentReply.created_at == self.reserved_at,
        )
        self.context.session.execute(mine, execution_options={"synchronize_session": False})


def begin(
    context: RequestContext, key: str, digest: str, *, is_limited: bool = True, reserve: bool = False
) -> Slot:
    """Return the slot of this request.

    :param is_limited: count the key among those that an owner may have in a day.
    :param reserve: reserve the key at once, for a request that does what no rollback undoes.
    :raises Refused: the key was used for another request, or its first request is under way.
    :raises ThrottledError: the owner has too many keys.
    """
    first = _find(context, key, digest)
    if first is None and is_limited:
        _check_limit(context, besides=key)
    context.session.rollback()  # a transaction that has read cannot begin to write on SQLite
    slot = Slot(context, key, digest, is_limited, first)
    if first is None and reserve:
        slot.reserve()
    return slot


def keep(context: RequestContext, key: str, made: Made) -> None:
    """Store ids for `take`, in the session's transaction."""
    context.session.add(_row(context, key, key[-64:], 200, json.dumps(made), datetime.now(UTC)))


def take(context: RequestContext, key: str, life: timedelta) -> Made | None:
    """Return the ids that `keep` has stored, and delete them; None if there are none, or they are older than `life`.

    Commits if there are any.
    """
    row = context.session.execute(
        sa.select(IdempotentReply.sealed, IdempotentReply.created_at).where(*_of_key(context, key))
    ).first()
    if row is None:
        return None
    context.session.rollback()  # a transaction that has read cannot begin to write on SQLite
    gone: t.Any = context.session.execute(
        sa.delete(IdempotentReply).where(*_of_key(context, key)),
        execution_options={"synchronize_session": False},
    )
    context.session.commit()
    # Of two simultaneous requests both have read the row, and one has deleted it.
    is_first = gone.rowcount == 1 and datetime.now(UTC) - row.created_at < life
    return t.cast("Made", json.loads(row.sealed)) if is_first else None


def _under_way() -> Refused:
    return Refused(409, "The first request with this Idempotency-Key is still under way. Repeat it later.")


def _of_key(context: RequestContext, key: str) -> tuple[sa.ColumnElement[bool], ...]:
    return IdempotentReply.owner == context.account, IdempotentReply.key == key


def _row(
    context: RequestContext, key: str, digest: str, status: int, text: str, now: datetime
) -> IdempotentReply:
    return IdempotentReply(
        owner=context.account, key=key, digest=digest, status=status, sealed=text, created_at=now
    )


def _check_limit(context: RequestContext, *, besides: str) -> None:
    """Refuse a new key if the owner has too many.

    :param besides: this key is not counted: the first request with it may just have ended.
    :raises ThrottledError: until the oldest key expires.
    """
    now = datetime.now(UTC)
    mine = sa.select(
        sa.func.count(), sa.func.min(IdempotentReply.created_at, type_=IdempotentReply.created_at.type)
    ).where(
        IdempotentReply.owner == context.account,
        IdempotentReply.created_at > now - LIFE,
        IdempotentReply.key != besides,
    )
    count, oldest = context.session.execute(mine).one()
    most = context.state.settings.key_limit
    if count >= most:
        wait = (oldest + LIFE - now).total_seconds()
        raise ThrottledError(ErrorText("keys_too_many", most=most), wait)


def _find(context: RequestContext, key: str, digest: str) -> First | None:
    row = context.session.get(IdempotentReply, (context.account, key))
    if row is None:
        return None
    life = RESERVATION_LIFE if row.status == RESERVED else LIFE
    if datetime.now(UTC) - row.created_at > life:
        _forget(context, row)
        return None
    if row.digest != digest:
        message = "This Idempotency-Key was used for another request. Take a new one."
        raise Refused(422, message, code="key_reused", fields={"Idempotency-Key": [message]})
    if row.status == RESERVED:
        raise _under_way()
    if row.sealed.startswith("["):
        return First(row.status, json.loads(row.sealed))
    # Older versions stored the whole answer, encrypted and bound to no place; `open` refuses a text that is bound to
    # another place, for that was copied here from another column.
    headers, body = json.loads(context.state.vault.open(row.sealed, place_of("answer", key)))
    response = Response(body, row.status, mimetype="application/json")
    response.headers.update(t.cast("dict[str, str]", headers))
    return First(row.status, (), response)


def _forget(context: RequestContext, row: IdempotentReply) -> None:
    """Delete an expired key, unless another request has taken it again meanwhile."""
    gone = sa.delete(IdempotentReply).where(
        *_of_key(context, row.key), IdempotentReply.created_at == row.created_at
    )
    context.session.rollback()
    context.session.execute(gone, execution_options={"synchronize_session": False})
    context.session.commit()
    context.session.expunge_all()  # the identity map still has the deleted row
