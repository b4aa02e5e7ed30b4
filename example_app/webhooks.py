"""The whole integration with Flask-Webhooks. Channels and events are in ``catalog/accounting.yaml``."""

from __future__ import annotations

from flask_webhooks import Principal, Webhooks

from .auth import current_user

webhooks = Webhooks()


@webhooks.principal_loader
def load_principal() -> Principal | None:
    """Return the caller of the webhooks API or console; ``None`` if no user is signed in."""
    user = current_user()
    if user is None:
        return None
    rights = {"read", "write", "secrets"} if user.is_admin else {"read"}
    return Principal(owner=str(user.business_id), rights=frozenset(rights))
