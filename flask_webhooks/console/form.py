"""The form of a webhook: reads what it sends into a `SubscriptionInput`, and shows what is stored."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, field

from werkzeug.datastructures import MultiDict

from .. import subscriptions
from ..errors import SecretError, SubscriptionError
from ..models import Subscription
from ..queries.bounds import html_size
from ..subscriptions import SubscriptionInput
from ..web import version_of
from .formatting import span
from .i18n import _, sentence, sentence_of

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["Form", "of_form", "of_row", "settings_of"]


_NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{0,15})?|\.[0-9]{1,15}")
"""What a form accepts as a number: `float` accepts digits of all scripts, `nan`, `1_000` and more."""
NUMBERS = ("rate_limit",)
"""Fields of the form that hold a number, or nothing."""
LONGEST = 4_096
"""Characters of a text that are read: more than any field allows, so a text that was cut is refused as too long."""
HEADERS = 48 * 1024
"""Bytes of HTML for the names of headers on a page: more than accepted ones can have."""


@dataclass
class Form:
    """The fields as text, and the mistakes in them."""

    url: str = "https://"
    description: str = ""
    active: bool = True
    environment: str = "staging"
    format: str = ""
    """Empty: the format that the catalogue gives each event."""
    retry: str = ""
    """Empty, `standard`, `none` or `own`."""
    waits: str = ""
    """With `own`: seconds, separated by commas."""
    rate_limit: str = ""
    signature: str = "v1"
    wanted: dict[str, list[str]] = field(default_factory=dict)
    """Pattern to includes."""
    headers: list[tuple[str, str]] = field(default_factory=list, repr=False)
    """Name and value of new headers. A page never shows a value again, because it may be a credential."""
    known_headers: list[str] = field(default_factory=list)
    """Names of the headers that are stored already."""
    dropped: list[str] = field(default_factory=list)
    """Names of the headers to remove."""
    held: str = ""
    version: int | None = None
    errors: dict[str, list[str]] = field(default_factory=dict)

    def given(self) -> SubscriptionInput:
        """Return the values for `subscriptions`, without the environment, which only a new subscription takes."""
        return SubscriptionInput(
            url=self.url.strip(),
            description=self.description.strip(),
            active=self.active,
            format=self.format or None,
            events=[{"event": pattern, "includes": names} for pattern, names in self.wanted.items()],
            headers=self._headers(),
            retry=self._retry(),
            rate_limit=_number(self.rate_limit),
            signature=self.signature,
            held=self.held or None,
        )

    def _headers(self) -> dict[str, str | None]:
        given: dict[str, str | None] = dict.fromkeys(self.dropped)
        given.update((name, value) for name, value in self.headers if name or value)
        return given

    def _retry(self) -> t.Any:
        if self.retry != "own":
            return self.retry or None
        words = self.waits.replace(",", " ").split()
        return [float(word) if _NUMBER.fullmatch(word) else word for word in words]

    def shorten(self, most: int) -> None:
        """Drop surplus headers, so that the page that refuses them does not grow with their number.

        :param most: headers that a webhook may have; one more is kept, so that the form is still refused.
        """
        names = [name for name, _value in self.headers[: most + 1]] + self.known_headers[: most + 1]
        room = HEADERS - sum(html_size(name) for name in names)
        self.headers = self.headers[: most + 1 if room >= 0 else 0]
        self.known_headers = self.known_headers[: most + 1 if room >= 0 else 0]

    def take(self, error: SubscriptionError) -> None:
        """Add the messages of an error to the fields of the form: `events.0.includes` belongs to `events`."""
        for name, texts in error.fields.items():
            field = name.partition(".")[0].replace("channels", "events")
            self.errors.setdefault(field, []).extend(map(sentence, texts))
        if not error.fields:
            self.errors[""] = [sentence_of(error)]


def _number(sent: str) -> t.Any:
    """Return the number of a field; None for an empty one, the text itself where it is no number."""
    text = sent.strip().replace(",", ".")
    if not text:
        return None
    return float(text) if _NUMBER.fullmatch(text) else text


def of_form(sent: MultiDict[str, str]) -> Form:
    """Read a form that was sent, without checking it."""
    names, values = sent.getlist("header_name"), sent.getlist("header_value")
    text = {name: sent.get(name, "").strip()[:LONGEST] for name in ("url", "description", "waits", *NUMBERS)}
    return Form(
        url=text["url"],
        description=text["description"],
        active="active" in sent,
        environment=sent.get("environment", ""),
        format=sent.get("format", ""),
        retry=sent.get("retry", ""),
        waits=text["waits"],
        rate_limit=text["rate_limit"],
        signature=sent.get("signature", "v1"),
        wanted=_wanted(sent),
        headers=[(name.strip(), value) for name, value in zip(names, values, strict=False)],
        known_headers=sent.getlist("known_header"),
        dropped=sent.getlist("drop_header"),
        held=sent.get("held", ""),
        version=version_of(sent["version"]) if sent.get("version") else None,
    )


def _wanted(sent: MultiDict[str, str]) -> dict[str, list[str]]:
    includes: dict[str, list[str]] = {}
    for each in sent.getlist("include"):
        pattern, _space, name = each.partition(" ")
        includes.setdefault(pattern, []).append(name)
    events = sent.getlist("event")
    for line in sent.get("typed", "").splitlines():
        words = line.replace(",", " ").split()
        if words:
            events.append(words[0])
            includes.setdefault(words[0], []).extend(words[1:])
    picked = list(dict.fromkeys(events))
    whole = {pattern.partition(".")[0] for pattern in picked if pattern.endswith(".*")}
    return {
        pattern: list(dict.fromkeys(includes.get(pattern, ())))
        for pattern in picked
        # A single event of a channel that is listened to as a whole matters only if it has includes.
        if pattern.endswith("*") or pattern.partition(".")[0] not in whole or includes.get(pattern)
    }


def of_row(state: AppState, row: Subscription) -> Form:
    """Return the form of a stored subscription."""
    own: list[float] | None = row.retry if isinstance(row.retry, list) else None
    try:
        known = subscriptions.names(state.vault, row.headers, row.id)
    except SecretError:
        known = []
    return Form(
        url=row.url,
        description=row.description,
        active=row.active,
        environment=row.environment,
        format=row.format or "",
        retry="own" if own else "none" if own is not None else row.retry or "",
        waits=", ".join(f"{wait:g}" for wait in own or ()),
        rate_limit=f"{row.rate_limit:g}" if row.rate_limit is not None else "",
        signature=row.signature,
        wanted={listener.event: list(listener.includes) for listener in row.listeners},
        known_headers=known,
        version=row.version,
    )


def settings_of(row: Subscription, waits: t.Sequence[float]) -> list[tuple[str, str]]:
    """Return the settings that a webhook's page shows: label and value.

    :param waits: seconds before each retry, by its own schedule or the app's.
    """
    retries = _("%(count)s, over %(time)s", count=len(waits), time=span(sum(waits))) if waits else _("none")
    rate = _("%(rate)s per second", rate=f"{row.rate_limit:g}") if row.rate_limit else _("no limit")
    return [
        (_("Format"), row.format or _("as defined by each event")),
        (_("Retries"), retries),
        (_("Rate"), rate),
        (_("Signature"), "Ed25519" if row.signature == "v1a" else "HMAC-SHA256"),
    ]


def shape_faults(form: Form) -> dict[str, list[str]]:
    """Return the mistakes that only a form can have."""
    faults: dict[str, list[str]] = {}
    for name in NUMBERS:
        if isinstance(_number(getattr(form, name)), str):
            faults[name] = [_("Enter a number, or leave it empty.")]
    if form.retry == "own" and not form.waits.strip():
        faults["retry"] = [_("Enter the seconds before each retry, such as 5, 300, 3600.")]
    if any(value and not name for name, value in form.headers):
        faults["headers"] = [_("Enter a header name.")]
    return faults
