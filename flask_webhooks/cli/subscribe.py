"""The command with which an operator creates a subscription."""

from __future__ import annotations

import json
import typing as t

import click
from flask.cli import with_appcontext

from .. import subscriptions
from ..config import ENVIRONMENTS
from ..errors import SubscriptionError
from ..sql.transactions import repeated
from ..subscriptions import SubscriptionInput
from .context import open_state
from .output import say

if t.TYPE_CHECKING:
    from sqlalchemy.orm import Session

__all__ = ["subscribe"]


@click.command()
@click.option("--owner", required=True, help="The owner of the subscription.")
@click.option("--url", required=True, help="The URL to send to.")
@click.option(
    "--event",
    "events",
    multiple=True,
    required=True,
    help="The events to listen to: a name, `invoices.*` or `*`.",
)
@click.option("--environment", type=click.Choice(ENVIRONMENTS), help="Default: the environment of the app.")
@click.option("--description", default="", help="A description.")
@click.option("--json", "as_json", is_flag=True, help="Print it in the form of the API, as JSON.")
@with_appcontext
def subscribe(
    owner: str,
    url: str,
    events: tuple[str, ...],
    environment: str | None,
    description: str,
    as_json: bool,
) -> None:
    """Create a subscription and print its secret, which is shown only once. --event can be given several times.

    The checks are those of the API, except for the limits on the number of subscriptions per owner.
    """
    state = open_state()
    given = SubscriptionInput(url=url, events=events, environment=environment, description=description)

    def make(session: Session) -> dict[str, t.Any]:
        row, secret = subscriptions.create(state, session, given, owner=owner, limited=False)
        session.commit()
        return {**subscriptions.shown(state, row), "secret": secret.shown}

    try:
        made = repeated(state.own_engine, make)
    except SubscriptionError as error:
        lines = [f"{field}: {text}" for field, texts in error.fields.items() for text in texts]
        raise click.ClickException("\n".join(lines or [str(error)])) from error
    if as_json:
        say(json.dumps(made, indent=2, default=lambda moment: moment.isoformat()))
        return
    names = " ".join(each["event"] for each in made["events"])
    say(f"{made['id']}: {names} of {made['owner']} in {made['environment']} go to {made['url']}")
    say(f"Its secret, which is shown only once: {made['secret']}")
    if made["note"] is not None:
        say(f"{made['note']} (WEBHOOKS_ENVIRONMENT)")
