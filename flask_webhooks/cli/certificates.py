"""The command about client certificates (mTLS), which only who operates the service may give."""

from __future__ import annotations

import json
import typing as t
from datetime import UTC, datetime

import click
from flask.cli import with_appcontext

from .. import queries, subscriptions
from ..errors import SecretError
from ..models import Subscription
from ..principal import ALL_OWNERS
from ..signing import place_of
from ..state import AppState
from ..transport import ClientCertificate
from .context import open_session, open_state, refusals
from .output import say

__all__ = ["client_certificates"]


@click.command("client-certificates")
@click.argument("subscription_id", required=False)
@click.option(
    "--certificate",
    type=click.File("rb"),
    help="PEM file: the certificate first, then its chain; - for stdin.",
)
@click.option(
    "--key", type=click.File("rb"), help="PEM file of its key, not encrypted; may be the same file."
)
@click.option("--remove", is_flag=True, help="Remove the certificate.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
@with_appcontext
def client_certificates(
    subscription_id: str | None,
    certificate: t.BinaryIO | None,
    key: t.BinaryIO | None,
    remove: bool,
    as_json: bool,
) -> None:
    """List client certificates, or add one to a subscription or remove it.

    It is presented only to the host that the subscription sends to now. Its key is stored encrypted and never shown.
    """
    state = open_state()
    if subscription_id is None:
        if certificate is not None or key is not None or remove:
            raise click.UsageError("Name the subscription.")
        _tell(_all(state), as_json)
        return
    if remove == (certificate is not None) or (certificate is None) != (key is None):
        raise click.UsageError("Use --certificate with --key, or --remove.")
    now = datetime.now(UTC)
    with refusals(), open_session(state) as session:
        row = subscriptions.find(session, subscription_id, owner=ALL_OWNERS, to_change=True)
        if certificate is not None and key is not None:
            given = certificate.read().decode(errors="replace")
            private = given if key is certificate else key.read().decode(errors="replace")
            subscriptions.give_client_certificate(
                state, session, row, certificate=given, key=private, now=now
            )
        else:
            subscriptions.take_client_certificate(session, row, now)
        found = _values(state, row)
        session.commit()
    _tell([found], as_json)


def _all(state: AppState) -> list[dict[str, t.Any]]:
    with open_session(state) as session:
        return [_values(state, row) for row in queries.with_certificate(session)]


def _values(state: AppState, row: Subscription) -> dict[str, t.Any]:
    """What may be shown of a certificate."""
    identity, problem = None, None
    if row.client_certificate is not None:
        try:
            identity = ClientCertificate.load(
                state.vault.open(row.client_certificate, place_of("certificate", row.id))
            )
        except SecretError as error:
            problem = str(error)
    return {
        "id": row.id,
        "owner": row.owner,
        "url": row.url,
        "subject": identity.subject if identity is not None else None,
        "expires_at": identity.expires_at.isoformat() if identity is not None else None,
        "host": identity.host if identity is not None else None,
        "is_shown": identity is not None and identity.fits(row.url),
        "problem": problem,
    }


def _tell(found: t.Sequence[dict[str, t.Any]], as_json: bool) -> None:
    if as_json:
        say(json.dumps(found, indent=2))
        return
    for each in found:
        what = each["problem"] or "no client certificate"
        if each["subject"] is not None:
            elsewhere = "" if each["is_shown"] else f", which {each['url']} is not: it is not shown"
            what = f"{each['subject']}, valid until {each['expires_at'][:10]}, for {each['host']}{elsewhere}"
        say(f"{each['id']}  {each['owner']:12} {what}")
    if not found:
        say("No subscription has a client certificate.")
