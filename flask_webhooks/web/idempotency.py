"""What is sent again does nothing again: a request with an `Idempotency-Key`, a form of the console with its key.

Kept are the ids of what was made, not the answer: that is put together anew, so it takes no room, holds no secret, and
shows a thing as it is by now. They are kept in the same transaction as what the request did, so there is never one
without the other; two requests that come together with one key are decided by the table's primary key: the second
undoes what it did. What cannot be undone, such as a test request, reserves its key first, and the second is refused
while the first is under way. Kept: 24 hours, so many per owner, successes only: what was refused has done nothing and
may be tried again.
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
HURRY = timedelta(minutes=5)
"""After which a key that was reserved and never filled is free again: its process has died."""
RESERVED = 0
"""The status of a key whose request is under way."""
R = IdempotentReply

Made = t.Sequence[str]
"""Ids of what a request has made."""


@dataclass(frozen=True)
class First:
    """What the first request with a key was answered by."""

    status: int
    made: Made
    answer: Response | None = field(default=None, repr=False)
    """The answer itself, which versions kept that did not keep ids."""


@dataclass
class Slot:
    """The place of what a request makes: filled already, or to be filled. As a context it guards the view."""

    context: RequestContext
    key: str
    digest: str
    """Of all that the request asks for: another one must not come with the same key."""
    is_limited: bool
    """Whether an owner may have so many of these."""
    first: First | None = None
    """What the first request with this key has made; None: this is the first one."""
    reserved_at: datetime | None = None
    """None: not reserved; `commit` finds out who was first."""

    def __enter__(self) -> Slot:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Give a reserved key free again if the view has failed."""
        if kind is not None and self.reserved_at is not None:
            self.context.session.rollback()
            self._execute(sa.delete(R))
            self.context.session.commit()

    def reserve(self) -> None:
        """Take the key for this request.

        :raises Refused: another request has it.
        """
        self.reserved_at = datetime.now(UTC)
        session = self.context.session
        self._take_turn()
        session.add(_row(self.context, self.key, self.digest, RESERVED, "", self.reserved_at))
        try:
            session.commit()
        except sa.exc.IntegrityError:
            session.rollback()
            raise _under_way() from None

    def commit(self, status: int, made: Made) -> First | None:
        """Keep what was made and commit; if another request was first, undo and return what that has made."""
        session, now, text = self.context.session, datetime.now(UTC), json.dumps(made)
        if self.reserved_at is not None:
            self._execute(sa.update(R).values(status=status, sealed=text, created_at=now))
            session.commit()
            return None
        session.flush()
        self._take_turn()
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

    def _take_turn(self) -> None:
        """Look again whether there is room for the key, one request of an owner after the other.

        :raises ThrottledError: others were first.
        """
        if self.is_limited:
            throttle.lock(self.context.session, self.context.account, "keys")
            _check_limit(self.context, besides=self.key)

    def _execute(self, statement: t.Any) -> None:
        """Change the reservation, if it is still ours."""
        mine = statement.where(
            *_place(self.context, self.key), R.status == RESERVED, R.created_at == self.reserved_at
        )
        self.context.session.execute(mine, execution_options={"synchronize_session": False})


def begin(
    context: RequestContext, key: str, digest: str, *, is_limited: bool = True, reserve: bool = False
) -> Slot:
    """Return the place of what this request makes.

    :param is_limited: count the key among those that an owner may have in a day.
    :param reserve: take the key at once, for a request that does what no rollback undoes.
    :raises Refused: the key was used for another request, or its first request is under way.
    :raises ThrottledError: the owner has as many keys as there may be.
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
    """Keep ids for `take`, in the session's transaction."""
    context.session.add(_row(context, key, key[-64:], 200, json.dumps(made), datetime.now(UTC)))


def take(context: RequestContext, key: str, life: timedelta) -> Made | None:
    """Return what was kept under a key, and take it away; None if there is nothing, or no more.

    Ends the session's transaction if there is something.

    :param life: for how long it can be taken.
    """
    row = context.session.execute(sa.select(R.sealed, R.created_at).where(*_place(context, key))).first()
    if row is None:
        return None
    context.session.rollback()  # a transaction that has read cannot begin to write on SQLite
    gone: t.Any = context.session.execute(
        sa.delete(R).where(*_place(context, key)), execution_options={"synchronize_session": False}
    )
    context.session.commit()
    is_first = gone.rowcount == 1 and datetime.now(UTC) - row.created_at < life
    return t.cast("Made", json.loads(row.sealed)) if is_first else None


def _under_way() -> Refused:
    return Refused(409, "The first request with this Idempotency-Key is still under way. Repeat it later.")


def _place(context: RequestContext, key: str) -> tuple[sa.ColumnElement[bool], ...]:
    return R.owner == context.account, R.key == key


def _row(
    context: RequestContext, key: str, digest: str, status: int, text: str, now: datetime
) -> IdempotentReply:
    return R(owner=context.account, key=key, digest=digest, status=status, sealed=text, created_at=now)


def _check_limit(context: RequestContext, *, besides: str) -> None:
    """Refuse a new key of an owner who has many.

    :param besides: the key itself: the first request with it may just have ended.
    :raises ThrottledError: until the oldest of them runs out.
    """
    now = datetime.now(UTC)
    mine = sa.select(sa.func.count(), sa.func.min(R.created_at, type_=R.created_at.type)).where(
        R.owner == context.account, R.created_at > now - LIFE, R.key != besides
    )
    count, oldest = context.session.execute(mine).one()
    most = context.state.settings.key_limit
    if count >= most:
        wait = (oldest + LIFE - now).total_seconds()
        raise ThrottledError(ErrorText("keys_too_many", most=most), wait)


def _find(context: RequestContext, key: str, digest: str) -> First | None:
    row = context.session.get(R, (context.account, key))
    if row is None:
        return None
    life = HURRY if row.status == RESERVED else LIFE
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
    # As versions kept it that sealed all of it, for no place. What has one was copied here from another table.
    headers, body = json.loads(context.state.vault.open(row.sealed, place_of("answer", key)))
    response = Response(body, row.status, mimetype="application/json")
    response.headers.update(t.cast("dict[str, str]", headers))
    return First(row.status, (), response)


def _forget(context: RequestContext, row: IdempotentReply) -> None:
    """Remove a key that has run out, unless another request has taken it again meanwhile."""
    gone = sa.delete(R).where(*_place(context, row.key), R.created_at == row.created_at)
    context.session.rollback()
    context.session.execute(gone, execution_options={"synchronize_session": False})
    context.session.commit()
    context.session.expunge_all()
