"""Commands about subscriptions: create one, list them, and send one a test request."""

from __future__ import annotations

import json
import typing as t
from datetime import UTC, datetime

import click
from flask.cli import with_appcontext
from sqlalchemy.orm import Session

from .. import queries
from ..config import ENVIRONMENTS
from ..delivery import TEST_EVENT, Subject, send_test_request
from ..errors import SubscriptionError
from ..models import Attempt
from ..principal import ALL_OWNERS, Whose
from ..reference import sample_data
from ..sql.transactions import repeated
from ..state import AppState
from ..subscriptions import SubscriptionInput, create, find, shown
from ..visible import is_storable
from .context import open_session, open_state, refusals
from .output import say

__all__ = ["send_test", "subscribe", "subscriptions"]

PAGE = 100


# ---- subscribe -------------------------------------------------------------------------------------------


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
        row, secret = create(state, session, given, owner=owner, limited=False)
        session.commit()
        return {**shown(state, row), "secret": secret.shown}

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


# ---- subscriptions ---------------------------------------------------------------------------------------


@click.command()
@click.option("--owner", help="Only those of this owner.")
@click.option("--environment", type=click.Choice(ENVIRONMENTS), help="Only those of this environment.")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON.")
@with_appcontext
def subscriptions(owner: str | None, environment: str | None, as_json: bool) -> None:
    """List subscriptions, newest first, with the results of the last 24 hours."""
    if not is_storable(owner or ""):
        raise click.BadParameter(
            "An owner cannot contain a NUL or half of a surrogate pair.", param_hint="--owner"
        )
    with open_session(open_state()) as session:
        found = [
            _values(each) for each in _all(session, ALL_OWNERS if owner is None else owner, environment or "")
        ]
    if as_json:
        say(json.dumps(found, indent=2))
        return
    for each in found:
        rate = "-" if each["success_rate"] is None else f"{each['success_rate']:.1%}"
        say(
            f"{each['id']}  {each['owner']:12} {each['environment']:11} {each['standing']:9} "
            f"{each['attempts']:>7} {rate:>6}  {each['url']}  {' '.join(each['events'])}",
            keep="",
        )
    say(f"{len(found)} subscription{'' if len(found) == 1 else 's'}.")


def _all(session: Session, owner: Whose, environment: str) -> t.Iterator[queries.Overview]:
    now, last = datetime.now(UTC), ""
    while page := queries.overviews(
        session, owner=owner, now=now, environment=environment, before=last, most=PAGE
    ):
        yield from page
        last = page[-1].subscription.id


def _values(each: queries.Overview) -> dict[str, t.Any]:
    row, day = each.subscription, each.day
    return {
        "id": row.id,
        "owner": row.owner,
        "environment": row.environment,
        "url": row.url,
        "description": row.description,
        "active": row.active,
        "standing": each.standing.value,
        "disabled_reason": row.disabled_reason,
        "events": sorted(listener.event for listener in row.listeners),
        "attempts": day.attempts,
        "success_rate": day.success_rate,
        "failures_in_a_row": each.lane.failures if each.lane is not None else 0,
        "last_attempt_at": each.last_at.isoformat() if each.last_at is not None else None,
    }


# ---- send-test -------------------------------------------------------------------------------------------


@click.command("send-test")
@click.argument("subscription_id", metavar="ID")
@click.option("--event", default=TEST_EVENT, show_default=True, help="Send a sample of this event.")
@click.option("--json", "as_json", is_flag=True, help="Print the attempt as JSON.")
@with_appcontext
def send_test(subscription_id: str, event: str, as_json: bool) -> None:
    """Send one test request now, and print the response. Exit code 1 if it did not succeed.

    It is checked, signed and logged like a real delivery, but is never retried and does not count in statistics.
    """
    state = open_state()
    with refusals(), open_session(state) as session:
        row = find(session, subscription_id, owner=ALL_OWNERS)
        key, format = row.id, row.format
        session.rollback()  # no transaction is open while a request is under way
        delivery_id = send_test_request(state, key, _subject(state, event), format=format)
        detail = queries.delivery_detail(session, delivery_id, owner=ALL_OWNERS)
    assert detail is not None  # noqa: S101  # `send_test_request` has just written it
    _tell(detail.attempts[-1], as_json)
    if detail.delivery.state != "delivered":
        raise SystemExit(1)


def _subject(state: AppState, name: str) -> Subject:
    if name == TEST_EVENT:
        return Subject()
    event = state.catalog.event_called(name, "`flask webhooks catalog` lists them.")
    return Subject(name, sample_data(state.bound[event.channel], event))


def _tell(attempt: Attempt, as_json: bool) -> None:
    text = queries.of_attempt(attempt).text
    if as_json:
        names = ("delivery_id", "subscription_id", "url", "status", "failure", "detail", "total_seconds")
        say(json.dumps({**{name: getattr(attempt, name) for name in names}, "response": text}))
        return
    answer = attempt.status or attempt.failure
    say(f"{attempt.url}: {answer} after {attempt.total_seconds * 1000:.0f} ms. {attempt.detail}")
    if text:
        say(text)
