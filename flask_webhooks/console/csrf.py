"""The token in every form, by which another site cannot make a signed-in browser change anything (CSRF).

It is signed with the app's own key, and contains the owner, the rights and the operator flag of the principal that it
was made for: a token of a colleague who may only read is refused in an administrator's browser. It needs neither a
session nor a cookie of ours. A request that the browser marks as coming from another origin is refused as well (see
`web.origin`).
"""

from __future__ import annotations

import hmac

from itsdangerous import BadData, URLSafeTimedSerializer

from ..principal import Principal
from ..state import AppState

__all__ = ["FIELD", "LIFE", "fits", "make"]

FIELD = "webhooks_token"
LIFE = 12 * 3600
"""Seconds that a token is valid: a working day. A form that was open for longer has to be reloaded."""


def make(state: AppState, principal: Principal) -> str:
    """Return a token for the forms that this principal is shown."""
    return str(_serializer(state).dumps(_bound_to(principal)))


def fits(state: AppState, principal: Principal, token: str) -> bool:
    """Whether a token was made for this principal, and has not expired."""
    try:
        bound = _serializer(state).loads(token, max_age=LIFE)
    except BadData:
        return False
    return isinstance(bound, str) and hmac.compare_digest(bound.encode(), _bound_to(principal).encode())


def _bound_to(principal: Principal) -> str:
    rights = ",".join(sorted(principal.rights))
    return f"{'*' if principal.operator else '-'}|{rights}|{principal.account}"


def _serializer(state: AppState) -> URLSafeTimedSerializer:
    # An app without sessions may have no SECRET_KEY. The encryption key is at least as secret.
    key = state.app.secret_key or state.settings.encryption_keys[0]
    return URLSafeTimedSerializer(key, salt="flask-webhooks-console")
