"""`Idempotency-Key`: a POST that is sent again does nothing again, and is answered by what it made the first time.

Kept are the ids of what was made, not the answer: that is put together anew, so it takes no room, holds no secret, and
tells of a thing as it is by now. They are kept in the same transaction as what the request did, so there is never one
without the other; two requests that come together with one key are decided by the table's primary key: the second
undoes what it did. What cannot be undone, such as a test request, reserves its key first, and the second is refused
while the first is under way. Kept: 24 hours, so many per owner, successes only: what was refused has done nothing and
may be tried again.
"""

from __future__ import annotations

import hashlib
import json
import re
import typing as t
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from flask import Response, request

from .. import throttle
from ..errors import ErrorText, ThrottledError
from ..models import IdempotentReply
from ..signing import place_of
from ..web import Refused
from .operations import Call, Operation

__all__ = ["LIFE", "begin"]

LIFE = timedelta(hours=24)
HURRY = timedelta(minutes=5)
"""After which a key that was reserved and never filled is free again: its process has died."""
_KEY = re.compile(r"[!-~]([ -~]{0,253}[!-~])?")


RESERVED = 0
"""The status of a key whose request is under way."""


@dataclass(frozen=True)
class First:
    """What a request was answered by."""

    status: int
    made: Made
    answer: Response | None = field(default=None, repr=False)
    """The answer itself, which versions kept that did not keep ids."""


Made = tuple[str, ...]


@dataclass
class Slot:
    """The place of an answer: one that is there already, or one to be filled. As a context it guards the view."""

    call: Call
    key: str
    digest: str
    first: First | None = None
    """What the first request with this key has made; None: this is the first one."""
    reserved_at: datetime | None = None
    """None: not reserved; `commit` finds out who was first."""

    def __enter__(self) -> Slot:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Give a reserved key free again if the view has failed."""
        if kind is not None and self.reserved_at is not None:
            self.call.session.rollback()
            self._execute(sa.delete(IdempotentReply))
            self.call.session.commit()

    def reserve(self) -> None:
        """Take the key for this request.

        :raises Refused: another request has it.
        """
        self.reserved_at = datetime.now(UTC)
        session = self.call.session
        self._take_turn()
        session.add(self._row(RESERVED, "", self.reserved_at))
        try:
            session.commit()
        except sa.exc.IntegrityError:
            session.rollback()
            raise _under_way() from None

    def commit(self, status: int, made: Made) -> First | None:
        """Keep what was made and commit; if another request was first, undo and return what that has made."""
        session, now = self.call.session, datetime.now(UTC)
        row = self._row(status, json.dumps(made), now)
        if self.reserved_at is not None:
            values = {"status": row.status, "sealed": row.sealed, "created_at": row.created_at}
            self._execute(sa.update(IdempotentReply).values(values))
            session.commit()
            return None
        session.flush()
        self._take_turn()
        try:
            session.add(row)
            session.commit()
        except sa.exc.IntegrityError:
            session.rollback()
            first = _find(self.call, self.key, self.digest)
            if first is None:
                raise
            return first
        return None

    def _take_turn(self) -> None:
        """Look again whether there is room for the key, one request of an owner after the other.

        :raises ThrottledError: others were first.
        """
        throttle.lock(self.call.session, self.call.principal.account, "keys")
        _check_limit(self.call, beside=self.key)

    def _row(self, status: int, sealed: str, now: datetime) -> IdempotentReply:
        return IdempotentReply(
            owner=self.call.principal.account,
            key=self.key,
            digest=self.digest,
            status=status,
            sealed=sealed,
            created_at=now,
        )

    def _execute(self, statement: t.Any) -> None:
        """Change the reservation, if it is still ours."""
        mine = statement.where(
            IdempotentReply.owner == self.call.principal.account,
            IdempotentReply.key == self.key,
            IdempotentReply.status == RESERVED,
            IdempotentReply.created_at == self.reserved_at,
        )
        self.call.session.execute(mine, execution_options={"synchronize_session": False})


def _under_way() -> Refused:
    return Refused(409, "The first request with this Idempotency-Key is still under way. Repeat it later.")


def begin(call: Call, operation: Operation, raw: bytes) -> Slot | None:
    """Return the place for the answer of this request; None where it has no key.

    :raises Refused: a malformed key, or one that was used for another request.
    """
    key = request.headers.get("Idempotency-Key")
    if key is None or not operation.is_repeatable:
        return None
    if not _KEY.fullmatch(key):
        message = "An Idempotency-Key is 1 to 255 printable ASCII characters."
        raise Refused(400, message, fields={"Idempotency-Key": [message]})
    told = json.dumps([request.method, request.full_path, call.principal.operator]).encode()
    digest = hashlib.sha256(told + b"\n" + raw).hexdigest()
    first = _find(call, key, digest)
    if first is None:
        _check_limit(call, beside=key)
    call.session.rollback()  # a transaction that has read cannot begin to write on SQLite
    kept = Slot(call, key, digest, first)
    if first is None and operation.is_final:
        kept.reserve()
    return kept


def _check_limit(call: Call, *, beside: str) -> None:
    """Refuse a new key of an owner who has many.

    :param beside: the key itself: the first request with it may just have ended.
    :raises ThrottledError: until the oldest of them runs out.
    """
    R, now = IdempotentReply, datetime.now(UTC)
    mine = sa.select(sa.func.count(), sa.func.min(R.created_at, type_=R.created_at.type)).where(
        R.owner == call.principal.account, R.created_at > now - LIFE, R.key != beside
    )
    count, oldest = call.session.execute(mine).one()
    most = call.state.settings.key_limit
    if count >= most:
        wait = (oldest + LIFE - now).total_seconds()
        raise ThrottledError(ErrorText("keys_too_many", most=most), wait)


def _find(call: Call, key: str, digest: str) -> First | None:
    row = call.session.get(IdempotentReply, (call.principal.account, key))
    if row is None:
        return None
    life = HURRY if row.status == RESERVED else LIFE
    if datetime.now(UTC) - row.created_at > life:
        call.session.rollback()
        gone = sa.delete(IdempotentReply).where(
            IdempotentReply.owner == row.owner,
            IdempotentReply.key == key,
            IdempotentReply.created_at == row.created_at,
        )
        call.session.execute(gone, execution_options={"synchronize_session": False})
        call.session.commit()
        call.session.expunge_all()
        return None
    if row.digest != digest:
        message = "This Idempotency-Key was used for another request. Take a new one."
        raise Refused(422, message, code="key_reused", fields={"Idempotency-Key": [message]})
    if row.status == RESERVED:
        raise _under_way()
    if row.sealed.startswith("["):
        return First(row.status, tuple(json.loads(row.sealed)))
    # As versions kept it that sealed all of it, for no place. What has one was copied here from another table.
    headers, body = json.loads(call.state.vault.open(row.sealed, place_of("answer", key)))
    response = Response(body, row.status, mimetype="application/json")
    response.headers.update(t.cast("dict[str, str]", headers))
    return First(row.status, (), response)
