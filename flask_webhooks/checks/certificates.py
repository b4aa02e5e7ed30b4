"""Client certificates that are about to expire, so that they are replaced before receivers refuse them."""

from __future__ import annotations

import typing as t
from datetime import datetime, timedelta

import sqlalchemy as sa

from ..errors import SecretError
from ..models import Subscription
from ..signing import place_of
from ..transport import ClientCertificate
from .findings import Check, Finding, Level

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["check_certificates"]

SOON = timedelta(days=30)
"""Before its end an operator wants to know of it."""


def check_certificates(state: AppState, now: datetime) -> Check | None:
    """Report certificates that have expired, expire soon, or cannot be decrypted; None if there are no certificates."""
    wanted = sa.select(Subscription.id, Subscription.client_certificate).where(
        Subscription.client_certificate.is_not(None), Subscription.deleted_at.is_(None)
    )
    try:
        with state.own_engine.connect() as connection:
            rows: list[t.Any] = list(connection.execute(wanted.order_by(Subscription.id)))
    except sa.exc.SQLAlchemyError:  # reported already
        return None
    if not rows:
        return None
    findings = [finding for row in rows if (finding := _finding(state, row, now)) is not None]
    return Check("certificates", f"{len(rows)} for single receivers", tuple(findings))


def _finding(state: AppState, row: t.Any, now: datetime) -> Finding | None:
    try:
        identity = ClientCertificate.load(
            state.vault.open(row.client_certificate, place_of("certificate", row.id))
        )
    except SecretError as error:
        return Finding(Level.ERROR, f"The certificate of subscription {row.id} cannot be decrypted. {error}")
    if identity.expires_at > now + SOON:
        return None
    ends = "expired" if identity.expires_at <= now else "expires"
    text = (
        f"The certificate of subscription {row.id} ({identity.subject}) {ends} on "
        f"{identity.expires_at:%Y-%m-%d}. Replace "
        f"it: flask webhooks client-certificates {row.id} --certificate FILE --key FILE"
    )
    return Finding(Level.WARNING, text)
