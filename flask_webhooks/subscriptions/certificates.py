"""Client certificates (mTLS): an operator sets them; they are stored encrypted and presented to one host only.

A certificate identifies *us*, so no customer can set or see one. It is bound to the host that the operator chose: if a
customer changes the URL to another host, it is not presented there.
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
    :raises SubscriptionError: key and certificate do not match, are unreadable or expired; or the URL is not https.
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
