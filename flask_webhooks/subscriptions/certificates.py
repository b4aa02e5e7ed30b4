"""Client certificates (mTLS): given by an operator, sealed with their key, and shown to one host alone.

A certificate says who *we* are, so no customer can give or see one. It is bound to the host that the operator gave it
for: a customer who changes the URL to another host does not take it there.
"""

from __future__ import annotations

import typing as t
from datetime import datetime
from urllib.parse import urlsplit

from sqlalchemy.orm import Session

from .. import models
from ..errors import ErrorText, SubscriptionError
from ..signing import place_of
from ..transport import CertificateError, ClientCertificate, parse_client_certificate

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["give_client_certificate", "take_client_certificate"]


def give_client_certificate(
    state: AppState,
    session: Session,
    subscription: models.Subscription,
    *,
    certificate: str,
    key: str,
    now: datetime,
) -> ClientCertificate:
    """Keep a certificate for the host that the subscription sends to; it replaces the one before.

    Call it with the subscription locked (see `changes.find`), and only for an operator.

    :param certificate: PEM, ours first, then its chain.
    :param key: PEM, not encrypted.
    :raises SubscriptionError: they do not fit, have expired, cannot be read; or the URL is not https.
    """
    parts = urlsplit(subscription.url)
    if parts.scheme != "https":
        raise _refused(ErrorText("certificate_without_tls"))
    try:
        found = parse_client_certificate(certificate, key, parts.hostname or "", now)
    except CertificateError as error:
        raise _refused(error.args[0]) from None
    _write(
        session, subscription, state.vault.seal(found.dump(), place_of("certificate", subscription.id)), now
    )
    return found


def take_client_certificate(session: Session, subscription: models.Subscription, now: datetime) -> None:
    """Remove the certificate, if there is one; see `give_client_certificate`."""
    _write(session, subscription, None, now)


def _refused(text: ErrorText) -> SubscriptionError:
    return SubscriptionError(text, {"client_certificate": [text]})


def _write(session: Session, subscription: models.Subscription, sealed: str | None, now: datetime) -> None:
    subscription.client_certificate = sealed
    subscription.version += 1
    subscription.updated_at = now
    session.flush()
