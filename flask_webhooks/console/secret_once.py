"""A secret that is shown on one page, once: the POST that makes it redirects there, so that a reload makes nothing.

The address carries a token that nobody can guess; behind it are ids, kept beside those of forms (see `repeats`).
Whoever opens the page first takes it away: a history, a log of addresses or a reload has nothing to show.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import typing as t
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from flask import request

from ..models import IdempotentReply
from .repeats import keep_ids

if t.TYPE_CHECKING:
    from .pages import PageContext

__all__ = ["FIELD", "keep", "take"]

FIELD = "once"
LIFE = timedelta(minutes=10)
"""A browser follows a redirect at once."""


def keep(visit: PageContext, made: list[str]) -> str:
    """Keep what may be shown once, in the visit's transaction; return the token for the address."""
    token = secrets.token_urlsafe(18)
    keep_ids(visit, _key(token), made)
    return token


def take(visit: PageContext) -> list[str] | None:
    """Return what this address may show, and take it away; None if there is nothing, or no more.

    A browser that only looks ahead takes nothing away.
    """
    token = visit.query.get(FIELD, "")
    if not token or request.method != "GET" or "prefetch" in request.headers.get("Sec-Purpose", ""):
        return None
    mine = IdempotentReply.owner == visit.principal.account, IdempotentReply.key == _key(token)
    row = visit.session.execute(
        sa.select(IdempotentReply.sealed, IdempotentReply.created_at).where(*mine)
    ).first()
    if row is None:
        return None
    visit.session.rollback()  # a transaction that has read cannot begin to write on SQLite
    gone: t.Any = visit.session.execute(
        sa.delete(IdempotentReply).where(*mine), execution_options={"synchronize_session": False}
    )
    visit.session.commit()
    is_first = gone.rowcount == 1 and datetime.now(UTC) - row.created_at < LIFE
    return t.cast("list[str]", json.loads(row.sealed)) if is_first else None


def _key(token: str) -> str:
    return "console-once:" + hashlib.sha256(token.encode()).hexdigest()
