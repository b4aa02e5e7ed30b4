"""A form that makes something and is sent twice, by a double click or by reloading the answer, makes it once.

Each form carries a key of its own. The ids of what it made are kept beside the API's to an `Idempotency-Key`, in the
same transaction, under the key and what was filled in: going back to change a field is a new form. After a day they are
purged with those.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import typing as t
from datetime import UTC, datetime

from ..models import IdempotentReply
from .csrf import FIELD as TOKEN

if t.TYPE_CHECKING:
    from .pages import PageContext

__all__ = ["FIELD", "first", "keep", "keep_ids", "new_key"]

FIELD = "form_key"
LONGEST = 64
"""Characters of a key that a page shows again; ours have fewer."""


def new_key() -> str:
    """Return the key of a form that is shown: nobody else can guess it, for behind it lies a secret."""
    return secrets.token_urlsafe(18)


def first(visit: PageContext) -> list[str] | None:
    """Return what was kept when this form came first; None: it does so now."""
    if not visit.form.get(FIELD):
        return None
    row = visit.session.get(IdempotentReply, (visit.principal.account, _key(visit)))
    if row is None or not row.sealed.startswith("["):  # or of a version that sealed the secret itself
        return None
    return t.cast("list[str]", json.loads(row.sealed))


def keep(visit: PageContext, made: list[str]) -> None:
    """Keep what this form has made. If another request was first, committing raises `IntegrityError`."""
    if visit.form.get(FIELD):
        keep_ids(visit, _key(visit), made)


def keep_ids(visit: PageContext, key: str, ids: list[str]) -> None:
    """Keep ids behind a key, in the visit's transaction."""
    visit.session.add(
        IdempotentReply(
            owner=visit.principal.account,
            key=key,
            digest=key[-64:],
            status=200,
            sealed=json.dumps(ids),
            created_at=datetime.now(UTC),
        )
    )


def _key(visit: PageContext) -> str:
    filled = sorted((name, value) for name, value in visit.form.items(multi=True) if name != TOKEN)
    return "console:" + hashlib.sha256(json.dumps(filled).encode()).hexdigest()
