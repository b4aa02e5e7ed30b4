"""Sends a test request and shows its outcome."""

from __future__ import annotations

from .. import queries, subscriptions
from ..delivery import TEST_EVENT, Body, Subject
from ..errors import PayloadError
from ..reference import example_data
from ..web import Refused, manual
from .delivery import shown_attempts
from .i18n import _
from .pages import Page, PageContext, Redirect, page

__all__ = ["send_test"]


@page("POST", "/webhooks/<uuid:subscription_id>/test", right="write")
def send_test(context: PageContext, subscription_id: object) -> Page | Redirect:
    """Send a test through the same guard, signature and log as a real delivery."""
    key = str(subscription_id)
    asked = subscriptions.find(context.session, key, owner=context.owner).format
    subject = _subject(context, context.form.get("event", TEST_EVENT))
    try:
        delivery_id = manual.send_test(context, key, subject, asked)
    except PayloadError as error:
        raise Refused(422, str(error)) from error
    if not context.is_partial:
        return Redirect("delivery", {"delivery_id": delivery_id})
    detail = queries.delivery_detail(context.session, delivery_id, owner=context.owner)
    assert detail is not None  # noqa: S101  # it has just been written
    return Page(
        "_test_send.html",
        {"detail": detail, "attempt": shown_attempts(detail, Body(detail.delivery.body))[-1]},
    )


def _subject(context: PageContext, name: str) -> Subject:
    if name in ("", TEST_EVENT):
        return Subject()
    event = context.state.catalog.events.get(name)
    if event is None:
        raise Refused(404, _("There is no such event."))
    return Subject(name, example_data(context.state.bound[event.channel], event))
