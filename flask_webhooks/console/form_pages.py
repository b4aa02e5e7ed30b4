"""Creating and editing a webhook: the form, its checks while it is filled in, and its preview."""

from __future__ import annotations

import dataclasses
import typing as t

from .. import signing, subscriptions, throttle
from ..config import ENVIRONMENTS
from ..delivery import run_probe
from ..errors import SubscriptionChangedError, SubscriptionError
from ..ids import is_id
from ..models import Subscription
from ..outcome import Failure
from ..principal import ALL_OWNERS
from ..queries.bounds import html_size
from ..subscriptions import SubscriptionInput
from ..transport import REFUSED
from ..web import Refused
from . import once
from .event_picker import TYPED, count_events, few, picker
from .event_types import example_text
from .first_steps import arrive
from .form import Form, of_form, of_row, shape_faults
from .i18n import _, sentence
from .pages import Page, PageContext, Redirect, page
from .secrets import secrets_of
from .webhooks import held_count

__all__ = ["check_url", "create", "edit", "new", "preview", "probe", "save"]

LOOK = "look"
"""The name of the button that searches events: the form is shown again as filled in, with other boxes."""
LONGEST_QUERY = 200


@page("GET", "/webhooks/new", right="write")
def new(context: PageContext) -> Page:
    """Show an empty form, or one with the event in the query picked."""
    _account(context)
    form = Form(environment=context.state.settings.only_environment or ENVIRONMENTS[0])
    event = context.query.get("event", "")
    if context.state.catalog.expand(event):
        form.wanted = {event: []}
    return _form_page(context, form, None)


@page("POST", "/webhooks/new", right="write", stores=False)
def create(context: PageContext) -> Page | Redirect:
    """Create a webhook and redirect to its first steps. The same form sent again redirects to the same webhook."""
    if LOOK in context.form:
        return _form_page(context, of_form(context.form), None)
    slot = once.made_by_form(context)
    if slot is not None and slot.first is not None:
        return arrive(context, *slot.first.made)
    form = of_form(context.form)
    form.errors = shape_faults(form)
    try:
        if form.errors:
            raise SubscriptionError("", subscriptions.examine(context.state, form.given()))
        given = dataclasses.replace(form.given(), environment=form.environment)
        row, _secret = subscriptions.create(context.state, context.session, given, owner=_account(context))
        made: t.Sequence[str] = row.id, subscriptions.secret_id(context.session, row)
        first = slot.commit(200, made) if slot is not None else None
        if first is not None:  # the other request of a double click has created it
            made = first.made
        context.session.commit()
    except SubscriptionError as error:
        context.session.rollback()
        form.take(error)
        return _form_page(context, form, None, status=422)
    return arrive(context, *made)


def _account(context: PageContext) -> str:
    """Return the owner of the webhooks that the visitor creates.

    :raises Refused: the visitor is an operator without an owner.
    """
    if context.principal.owner is ALL_OWNERS:
        raise Refused(
            403,
            _(
                "You have no account that a webhook could belong to. Use the API, and name the owner of the webhook."
            ),
        )
    return context.principal.owner


@page("GET", "/webhooks/<uuid:subscription_id>/edit", right="write")
def edit(context: PageContext, subscription_id: object) -> Page:
    """Show the form of a webhook."""
    row = subscriptions.find(context.session, str(subscription_id), owner=context.owner)
    return _form_page(context, of_row(context.state, row), row)


@page("POST", "/webhooks/<uuid:subscription_id>/edit", right="write")
def save(context: PageContext, subscription_id: object) -> Page | Redirect:
    """Change a webhook, unless it has been changed since the form was shown."""
    key = str(subscription_id)
    form = of_form(context.form)
    if LOOK in context.form:
        row = subscriptions.find(context.session, key, owner=context.owner)
        form.environment = row.environment
        return _form_page(context, form, row)
    form.errors = shape_faults(form)
    try:
        if form.errors:
            raise SubscriptionError("", subscriptions.examine(context.state, form.given()))
        subscriptions.change(
            context.state, context.session, key, form.given(), owner=context.owner, version=form.version
        )
        context.session.commit()
    except SubscriptionError as error:
        context.session.rollback()
        row = subscriptions.find(context.session, key, owner=context.owner)
        form.take(error)
        form.environment = row.environment
        return _form_page(
            context, form, row, status=409 if isinstance(error, SubscriptionChangedError) else 422
        )
    return Redirect("webhook", {"subscription_id": key}, notice="saved")


def _form_page(context: PageContext, form: Form, row: Subscription | None, status: int = 200) -> Page:
    state = context.state
    form.shorten(state.settings.header_limit)
    picked = [event.name for pattern in form.wanted for event in state.catalog.expand(pattern)]
    example = picked[0] if picked else next(iter(state.catalog.events))
    query = context.form.get("q", "")[:LONGEST_QUERY]
    shown = picker(state, form.wanted, query)
    if html_size(shown.typed) > TYPED:
        raise Refused(
            422, _("This is more than a form can show: use the API to change what this webhook listens to.")
        )
    values = {
        "form": form,
        "subscription": row,
        "environments": ENVIRONMENTS,
        "tagged": state.settings.only_environment,
        "picker": shown,
        "query": query,
        "picked": count_events(state.catalog, form.wanted),
        "formats": list(state.formats),
        "examples": few(state.catalog.events, example).shown,
        "catalog": state.catalog,
        "other_channels": _other_channels(context, row, form.environment),
        "held": held_count(context, row.id) if row is not None and not row.active else 0,
        "form_key": once.form_key(context),
        **_preview(context, form, example),
    }
    return Page("form.html", values, status)


def _other_channels(context: PageContext, row: Subscription | None, environment: str) -> list[str]:
    """Return channels of the owner's other active webhooks: at most two.

    A channel that is exclusive for the owner cannot be picked if another channel is among them; with two, there always
    is another one.
    """
    owner = row.owner if row is not None else _account(context)
    own = row.id if row is not None else None
    others = subscriptions.listened_to(context.session, owner, environment, besides=own)
    return sorted({pattern.partition(".")[0] for pattern in others})[:2]


# ---- while the form is being filled in -------------------------------------------------------------------


@page("POST", "/check-url", right="write")
def check_url(context: PageContext) -> Page:
    """Show the mistakes in a URL, as saving would."""
    url = context.form.get("url", "").strip()
    if url in ("", "https://"):
        return _url_page(checked=False)
    faults = subscriptions.examine(context.state, SubscriptionInput(url=url)).get("url", [])
    if not faults and context.state.transport.needs_lookup(url):
        with throttle.turn(context.state, context.session, context.account):
            faults = subscriptions.look_up(context.state, url)
    return _url_page(*faults)


def _url_page(*faults: str, checked: bool = True, **more: t.Any) -> Page:
    values = {"faults": [sentence(text) for text in faults], "checked": checked, **more}
    return Page("_url_check.html", values)


@page("POST", "/probe", right="write")
def probe(context: PageContext) -> Page:
    """Send one test to a URL, and show the request and the response."""
    url = context.form.get("url", "").strip()
    faults = subscriptions.examine(context.state, SubscriptionInput(url=url)).get("url", [])
    if faults:
        return _url_page(*faults)
    key = context.form.get("subscription", "")
    own = secrets_of(context, key) if is_id(key) else None
    # One at a time for an account: otherwise the form would be a tool to flood any public URL from our address.
    with throttle.turn(context.state, context.session, context.account):
        limit = context.state.settings.manual_timeout
        outbound, reply = run_probe(context.state, url, own or [signing.generate()], limit=limit)
    # One answer for both: the difference would reveal which internal names exist.
    if reply.failure in (Failure.DNS, Failure.BLOCKED_ADDRESS):
        return _url_page(REFUSED)
    return _url_page(reply=reply, sent=outbound, is_own=own is not None)


@page("POST", "/preview", right="read")
def preview(context: PageContext) -> Page:
    """Show the body of an event in a format."""
    form = of_form(context.form)
    name = context.form.get("preview_event", "")
    if name not in context.state.catalog.events:
        raise Refused(404, _("There is no such event."))
    return Page("_preview.html", _preview(context, form, name))


def _preview(context: PageContext, form: Form, name: str) -> dict[str, t.Any]:
    event = context.state.catalog.events[name]
    format = form.format if form.format in context.state.formats else event.format
    includes = {
        include
        for pattern, names in form.wanted.items()
        if event in context.state.catalog.expand(pattern)
        for include in names
    }
    environment = form.environment or ENVIRONMENTS[0]
    return {
        "preview_event": name,
        "preview_format": format,
        "preview": example_text(context.state, event, format, environment, includes),
        "is_offered": format in event.formats,
    }
