"""The page of one delivery: its attempts with requests, responses and timings; retry and cancel."""

from __future__ import annotations

import json
import typing as t
from dataclasses import dataclass

from .. import queries
from ..delivery import CHANGED, MASK, Body, body_of
from ..models import Attempt
from ..queries import DeliveryDetail
from ..queries.bounds import fit, html_size
from ..web import Refused, manual
from .formatting import pretty, reason_label, remedy, shown, text_of
from .i18n import _
from .pages import Page, PageContext, Raw, Redirect, page
from .rendering import nothing
from .snippets import LONGEST_INLINE, curl_command

__all__ = ["cancel", "curl", "delivery", "retry", "shown_attempts"]

LONGEST_BODY = 65_536
"""Characters of a request body that the page reads; the API returns all of it."""
BODY, RESPONSE, HEADERS, CURL = 48 * 1024, 24 * 1024, 10 * 1024, 8 * 1024
"""Bytes of HTML for a body, a response, headers and a command: a page with five attempts is below 512 KiB."""
CHANGES, VALUE = 50, 500
"""The table of changes: the most rows, and bytes of HTML of each value."""


@dataclass(frozen=True)
class Phase:
    """One phase of an attempt's time."""

    name: str
    label: str
    start: float
    """Seconds from the start of the attempt."""
    length: float


@dataclass(frozen=True)
class ShownAttempt:
    """An attempt, ready to be shown."""

    row: Attempt
    label: str
    """The failure in a few words; empty if there was none."""
    remedy: str
    request_headers: t.Mapping[str, str]
    response_headers: t.Mapping[str, str]
    response_body: str
    response_note: str
    """What `response_body` does not show, such as a damaged rest."""
    is_cut: bool
    """Whether `response_body` is shorter than the text."""
    phases: tuple[Phase, ...]
    has_curl: bool
    """Whether there is a curl command: only if the bytes that were sent are known."""
    curl: str
    """The command; empty if it is long: it is then loaded on demand."""
    left_out: tuple[str, ...]
    """Names of custom headers, which the command omits."""


@page("GET", "/deliveries/<uuid:delivery_id>", right="read")
def delivery(context: PageContext, delivery_id: object) -> Page | Raw:
    """Show a delivery. An open page polls it, and gets 204 if nothing has changed.

    With `response` in the query, return the bytes of that attempt's response instead, as a download.
    """
    before = context.identifier("before")
    detail = _find(context, str(delivery_id), before)
    row = detail.delivery
    if "response" in context.query:
        return _saved(context, row.id, context.identifier("response"))
    # A page that is open polls every few seconds. The mark changes with everything that the page shows.
    mark = f"{row.state} {row.attempts} {row.due_at.isoformat() if row.due_at else ''}"
    if context.is_partial and context.query.get("seen") == mark:
        return Raw(status=204)
    body = body_of(context.state, context.session.connection(), row)
    text = text_of(body.data)
    shown_body = pretty(text[:LONGEST_BODY], BODY)
    values = {
        "detail": detail,
        "attempts": shown_attempts(detail, body),
        "before": before,
        "body": shown_body,
        "body_note": _note(body),
        "is_cut": len(shown_body) < len(text),
        "changes": _changes(detail),
        "mark": mark,
    }
    return Page("delivery.html", values)


def _saved(context: PageContext, delivery_id: str, attempt_id: str) -> Raw:
    """Return the bytes of a response as a download: a browser must never render HTML that a receiver sent."""
    attempt = queries.attempt_of(context.session, delivery_id, attempt_id) if attempt_id else None
    if attempt is None:
        raise nothing()
    return Raw(attempt.response_body or b"", "application/octet-stream", filename=f"{attempt.id}.bin")


@page("GET", "/deliveries/<uuid:delivery_id>/curl", right="read")
def curl(context: PageContext, delivery_id: object) -> Raw:
    """Return the curl command of an attempt as plain text: of the one that `?attempt=` names, or of the last one."""
    detail = _find(context, str(delivery_id))
    key, last = context.identifier("attempt"), detail.attempts[-1] if detail.attempts else None
    row = queries.attempt_of(context.session, detail.delivery.id, key) if key else last
    body = body_of(context.state, context.session.connection(), detail.delivery)
    if row is None or body.data is None or not body.is_of(row):
        raise nothing()
    return Raw(curl_command(row.url, json.loads(row.request_headers or "{}"), body.data))


@page("POST", "/deliveries/<uuid:delivery_id>/retry", right="write")
def retry(context: PageContext, delivery_id: object) -> Redirect:
    """Make a delivery due now: with the same key and bytes, and a new signature."""
    key = str(delivery_id)
    owner = _find(context, key).subscription.owner
    retried = manual.retry(context, key, owner)
    if retried is manual.Retried.BROKEN:
        raise Refused(
            409, _("Its data could not be rendered: there is nothing to send until that is repaired.")
        )
    if retried is manual.Retried.SWITCHED_OFF:
        raise Refused(409, _("The webhook is switched off. Switch it on first."))
    return Redirect("delivery", {"delivery_id": key}, notice="retried")


@page("POST", "/deliveries/<uuid:delivery_id>/cancel", right="write")
def cancel(context: PageContext, delivery_id: object) -> Redirect:
    """Cancel a delivery that is pending, held or broken."""
    key = str(delivery_id)
    _find(context, key)
    if not manual.cancel_delivery(context, key):
        raise Refused(409, _("The delivery is no longer pending, so it cannot be cancelled."))
    return Redirect("delivery", {"delivery_id": key}, notice="cancelled")


def _find(context: PageContext, delivery_id: str, before: str = "") -> DeliveryDetail:
    found = queries.delivery_detail(context.session, delivery_id, owner=context.owner, before=before)
    if found is None:
        raise nothing()
    return found


def _changes(detail: DeliveryDetail) -> list[tuple[str, str, str]]:
    """Return (column, old value, new value) for each change of an update."""
    extras = json.loads(detail.message.extras) if detail.message is not None and detail.message.extras else {}
    changes = extras.get("changes") if isinstance(extras, dict) else None
    if not isinstance(changes, dict):
        return []
    pairs = [(name, pair) for name, pair in changes.items() if isinstance(pair, dict)]
    return [
        (fit(name, VALUE, html_size), _value(pair.get("from")), _value(pair.get("to")))
        for name, pair in pairs[:CHANGES]
    ]


def _value(value: t.Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return fit(text_of(text[:VALUE].encode("utf-8", "replace")), VALUE, html_size)


def _note(body: Body) -> str:
    """Return why there is no body; empty if there is one."""
    if body.reason == CHANGED:
        return _(
            "It was not stored, and rendering it again would give other bytes than were sent: "
            "a label or the format has changed."
        )
    return reason_label(body.reason) if body.reason else ""


def shown_attempts(detail: DeliveryDetail, body: Body) -> list[ShownAttempt]:
    """Return the attempts, ready to be shown, in the order they were made."""
    return [_shown_attempt(attempt, body) for attempt in detail.attempts]


def _shown_attempt(row: Attempt, body: Body) -> ShownAttempt:
    request_headers = json.loads(row.request_headers or "{}")
    answer = queries.of_attempt(row)
    sent = body.data if body.is_of(row) else None
    text = shown(answer.text)
    response_body = pretty(text, RESPONSE)
    return ShownAttempt(
        row=row,
        label=reason_label(row.failure) if row.failure else "",
        remedy=remedy(row.failure),
        request_headers=_some(request_headers),
        response_headers=_some(json.loads(row.response_headers or "{}")),
        response_body=response_body,
        is_cut=len(response_body) < len(text),
        response_note=" ".join(_(queries.NOTES[key]) % values for key, values in answer.notes),
        phases=tuple(_phases(row)),
        has_curl=sent is not None,
        curl=_inline(row, request_headers, sent),
        left_out=tuple(name for name, value in _some(request_headers).items() if value == MASK),
    )


def _inline(row: Attempt, headers: t.Mapping[str, str], sent: bytes | None) -> str:
    """Return the curl command if it fits on the page, else an empty text."""
    if sent is None or len(sent) > LONGEST_INLINE:
        return ""
    text = curl_command(row.url, headers, sent)
    return text if html_size(text) <= CURL else ""


def _some(headers: t.Mapping[str, str]) -> dict[str, str]:
    """Return as many headers as fit into `HEADERS` bytes of HTML."""
    found, room = {}, HEADERS
    for name, value in headers.items():
        room -= html_size(name) + html_size(value) + 40  # the markup of a line
        if room < 0:
            break
        found[name] = value
    return found


def _phases(row: Attempt) -> t.Iterator[Phase]:
    """Yield the phases in their order: name look-up, connection, TLS, the wait for the first byte, the body."""
    at = 0.0
    for name, label, length in (
        ("dns", _("DNS"), row.dns_seconds),
        ("connect", _("Connect"), row.connect_seconds),
        ("tls", _("TLS"), row.tls_seconds),
    ):
        if length is not None:
            yield Phase(name, label, at, length)
            at += length
    if row.first_byte_seconds is not None:
        yield Phase("wait", _("First byte"), at, max(row.first_byte_seconds - at, 0.0))
        at = max(row.first_byte_seconds, at)
        yield Phase("body", _("Body"), at, max(row.total_seconds - at, 0.0))
    elif row.total_seconds > at:
        yield Phase("wait", _("Waited"), at, row.total_seconds - at)
