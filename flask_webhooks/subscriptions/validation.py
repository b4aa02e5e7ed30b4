"""What a customer wrote about a subscription, checked against the catalogue, the guard and the limits.

Every function collects into `ValidationErrors`, so that the answer names all mistakes at once. Nothing here reads the
database; only `url` looks a name up, if told to.
"""

from __future__ import annotations

import json
import math
import typing as t
from collections.abc import Mapping, Sequence

from .. import payload, retry, signing
from ..bindings import CHANGES
from ..catalog import listed, nearest, unknown_channel, unknown_event
from ..config import ENVIRONMENTS
from ..errors import ErrorText, ExclusivityError, PayloadError, SecretError, SubscriptionError
from ..principal import ALL_OWNERS, is_owner
from . import headers

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["UNSET", "Unset", "ValidationErrors", "Wanted", "examine", "look_up"]

LONGEST_DESCRIPTION = 1024
MOST_INCLUDES = 100
"""Names that one listener may ask for."""
MOST_SUGGESTIONS = 5
"""Misspelt names for which one answer says what was probably meant."""
DEEPEST = 20
"""Levels of metadata: MariaDB keeps no JSON that has more than 32."""
SLOWEST, FASTEST = 0.001, 1000.0
"""Requests a second that a rate limit may name: slower than that is switched off, faster is no limit."""


class Unset:
    """The type of `UNSET`: a field that was not given, where None says something."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET = Unset()

Wanted = dict[str, list[str]]
"""Listener pattern to its includes, in the order they were given."""


class ValidationErrors:
    """What is wrong, by field."""

    def __init__(self) -> None:
        self.fields: dict[str, list[str]] = {}
        self._kind: type[SubscriptionError] = SubscriptionError
        self._suggestions = MOST_SUGGESTIONS

    def may_suggest(self) -> bool:
        """Whether to look for what was meant: for the first few, since that takes milliseconds each."""
        self._suggestions -= 1
        return self._suggestions >= 0

    def add(self, field: str, *messages: str) -> None:
        """Note messages about a field: `ErrorText`, except for what a check of the host's own has said."""
        for message in messages:
            known = self.fields.setdefault(field, [])
            if message not in known:
                known.append(message)

    def take(self, error: SubscriptionError) -> None:
        """Note what another check raised; a refusal that is nothing but exclusivity stays one."""
        if isinstance(error, ExclusivityError) and not self.fields:
            self._kind = ExclusivityError
        for field, messages in error.fields.items():
            self.add(field, *messages)

    def stop(self) -> None:
        """Raise if there is any fault.

        :raises SubscriptionError: with every fault in `fields`.
        """
        if not self.fields:
            return
        if self._kind is ExclusivityError and set(self.fields) == {"events"}:
            raise ExclusivityError(self.fields["events"][0], self.fields)
        places = len(self.fields)
        raise SubscriptionError(
            ErrorText("many_mistakes", fields=listed(sorted(self.fields)))
            if places > 1
            else next(iter(self.fields.values()))[0],
            self.fields,
        )


def is_storable(text: str) -> bool:
    """Whether every database can keep a text: no NUL, no half of a surrogate pair."""
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def url(state: AppState, value: object, faults: ValidationErrors, *, resolve: bool = False) -> str:
    """Return the normal form of a URL that the guard lets through.

    :param resolve: also look its name up, which takes up to `WEBHOOKS_MANUAL_TIMEOUT`.
    """
    if not isinstance(value, str):
        faults.add("url", ErrorText("url_not_text"))
        return ""
    if len(value) > state.settings.url_limit:
        faults.add("url", ErrorText("url_too_long", most=state.settings.url_limit))
        return ""
    try:
        return state.transport.check(value, resolve=resolve, limit=state.settings.manual_timeout)
    except SubscriptionError as error:
        faults.take(error)
        return ""


def wanted(state: AppState, events: object, channels: object, faults: ValidationErrors) -> Wanted:
    """Return the listeners that `events` and `channels` ask for together.

    :param events: a list of patterns and of ``{"event": pattern, "includes": [names]}``.
    :param channels: a list of channels, of each of which every event is wanted: ``invoices`` is ``invoices.*``.
    """
    found: Wanted = {}
    some, whole = _list(events, "events", faults), _list(channels, "channels", faults)
    count, most = len(some) + len(whole), state.settings.listener_limit
    if count > most:  # before any is looked at: looking for what was meant takes its time
        faults.add("events", ErrorText("too_many_listeners", count=count, most=most))
        return found
    for at, given in enumerate(some):
        _listener(state, given, f"events.{at}", found, faults)
    for at, name in enumerate(whole):
        channel = state.catalog.channels.get(name) if isinstance(name, str) else None
        if channel is None or not channel.events:
            faults.add(f"channels.{at}", _unknown("channel", name, state.catalog.channels, faults))
        else:
            found.setdefault(f"{name}.*", [])
    if not found and not faults.fields:
        faults.add("events", ErrorText("no_listeners"))
    return found


def _list(value: object, field: str, faults: ValidationErrors) -> Sequence[t.Any]:
    if value is None or isinstance(value, Unset):
        return ()
    if isinstance(value, str | Mapping) or not isinstance(value, Sequence):
        faults.add(field, ErrorText("not_a_list"))
        return ()
    return value


def _listener(state: AppState, given: object, field: str, found: Wanted, faults: ValidationErrors) -> None:
    pattern, includes = (
        (given.get("event"), given.get("includes") or []) if isinstance(given, Mapping) else (given, [])
    )
    covered = state.catalog.expand(pattern) if isinstance(pattern, str) else ()
    if not isinstance(pattern, str) or not covered:
        faults.add(field, _unknown("event", pattern, _patterns(state), faults))
        return
    names = _list(includes, f"{field}.includes", faults)
    if len(names) > MOST_INCLUDES:
        text = ErrorText("too_many_includes", count=len(names), most=MOST_INCLUDES)
        faults.add(f"{field}.includes", text)
        return
    for channel in dict.fromkeys(event.channel for event in covered):
        known = [CHANGES, *state.bound[channel].includes]
        for name in names:
            if name not in known:
                text = ErrorText(
                    "unknown_include", name=_short(name), channel=channel, known=", ".join(known)
                )
                faults.add(f"{field}.includes", text)
    kept = found.setdefault(pattern, [])
    kept.extend(name for name in dict.fromkeys(names) if name not in kept)


def _patterns(state: AppState) -> list[str]:
    wild = [f"{name}.*" for name, channel in state.catalog.channels.items() if channel.events]
    return [*state.catalog.events, *wild]


def _unknown(
    what: t.Literal["event", "channel"], name: object, known: t.Iterable[str], faults: ValidationErrors
) -> ErrorText:
    if not isinstance(name, str):
        return ErrorText("event_not_text") if what == "event" else ErrorText("channel_not_text")
    near = None
    if faults.may_suggest():
        near = nearest(name[:200], known)
        if near is None and what == "event":
            near = nearest(f"{name[:200]}.*", known)
    return unknown_event(name[:80], near) if what == "event" else unknown_channel(name[:80], near)


def format_(
    state: AppState, value: object, patterns: t.Iterable[str], faults: ValidationErrors
) -> str | None:
    """Return the envelope, which the catalogue must allow for every event that is listened to."""
    if value is None:
        return None
    if not isinstance(value, str) or value not in state.formats:
        faults.add("format", ErrorText("unknown_format", name=_short(value), known=", ".join(state.formats)))
        return None
    refusing = [
        event for pattern in patterns for event in state.catalog.expand(pattern) if value not in event.formats
    ]
    if refusing:
        allowed = set(refusing[0].formats).intersection(*(event.formats for event in refusing))
        names = ", ".join(event.name for event in refusing[:3]) + (", …" if len(refusing) > 3 else "")
        text = ErrorText("no_format_in_common", name=repr(value), events=names)
        if allowed:
            offered = ", ".join(sorted(allowed))
            text = ErrorText("format_not_offered", name=repr(value), events=names, allowed=offered)
        faults.add("format", text)
    return value


def retry_(value: object, faults: ValidationErrors) -> t.Any:
    """Return the schedule as it is kept: None, a name, or seconds."""
    try:
        retry.customers_schedule(t.cast("t.Any", value))
    except ValueError as error:
        faults.add("retry", error.args[0])
    return value


def rate_limit(value: object, faults: ValidationErrors) -> float | None:
    """Return requests a second; None for no limit."""
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not SLOWEST <= t.cast("float", value) <= FASTEST:
        faults.add("rate_limit", ErrorText("rate_limit_range", least=SLOWEST, most=round(FASTEST)))
        return None
    return float(t.cast("float", value))


def headers_(
    state: AppState, sealed: str | None, given: object, faults: ValidationErrors, *, subscription_id: str = ""
) -> str | None:
    """Return custom headers as they are kept: what was kept, with what was given.

    :param subscription_id: whose they are; empty: they are only looked at.
    """
    if given is None:
        return None
    checked, wrong = headers.check(given, state.settings.header_limit)
    if wrong:
        faults.add("headers", *wrong)
        return None
    together = headers.merged(headers.open_headers(state.vault, sealed, subscription_id), checked)
    faults.add("headers", *headers.check(together, state.settings.header_limit)[1])
    return headers.seal(state.vault, together, subscription_id)


def merged(known: Mapping[str, t.Any], given: object) -> object:
    """Return an object with what was given, by name; None removes (RFC 7396, without its depth)."""
    if not isinstance(given, Mapping):
        return given
    return {name: value for name, value in {**known, **given}.items() if value is not None}


def metadata(state: AppState, value: object, faults: ValidationErrors) -> dict[str, t.Any]:
    """Return the customer's own notes: an object of at most `WEBHOOKS_METADATA_LIMIT` bytes of JSON."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        faults.add("metadata", ErrorText("metadata_not_an_object"))
        return {}
    try:
        size = len(payload.encode(dict(value), root="metadata").encode())
    except PayloadError as error:
        faults.add("metadata", ErrorText("metadata_not_json", reason=str(error)))
        return {}
    if size > state.settings.metadata_limit:
        faults.add("metadata", ErrorText("metadata_too_large", size=size, most=state.settings.metadata_limit))
    if _is_deeper(value, DEEPEST):
        faults.add("metadata", ErrorText("metadata_too_deep", most=DEEPEST))
    # Without the backslashes that stand in the text themselves: one before `u0000` makes no NUL.
    if r"\u0000" in json.dumps(value).replace(r"\\", ""):
        faults.add("metadata", ErrorText("metadata_nul"))
    return dict(value)


def _is_deeper(value: object, most: int) -> bool:
    """Whether more than so many objects and lists are inside each other; without recursion, which has an end."""
    level = [value]
    for _ in range(most):
        level = [
            inner
            for each in level
            if isinstance(each, Mapping | list)
            for inner in (each.values() if isinstance(each, Mapping) else each)
        ]
    return any(isinstance(each, Mapping | list) for each in level)


def _short(value: object) -> str:
    """A value as a message shows it: an answer must not be as large as what was sent."""
    return repr(value[:80] if isinstance(value, str) else value)[:100]


def description(value: object, faults: ValidationErrors) -> str:
    """Return the customer's own words."""
    if not isinstance(value, str) or len(value) > LONGEST_DESCRIPTION or not is_storable(value):
        faults.add("description", ErrorText("description_text", most=LONGEST_DESCRIPTION))
        return ""
    return value


def owner(value: object, faults: ValidationErrors) -> str:
    """Return whose it is: a text that a principal may have as its owner."""
    if value is ALL_OWNERS:
        faults.add("owner", ErrorText("no_owner"))
    elif not isinstance(value, str) or not is_owner(value):
        faults.add("owner", ErrorText("unfit_owner"))
    else:
        return value
    return ""


def environment(state: AppState, value: object, faults: ValidationErrors) -> str:
    """Return one of the environments; None: the app's own, if that does not depend on the event."""
    if value is None:
        value = state.settings.environment
        if not isinstance(value, str):
            faults.add("environment", ErrorText("no_environment", known=listed(ENVIRONMENTS)))
            return ""
    if value not in ENVIRONMENTS:
        faults.add("environment", ErrorText("unknown_environment", known=listed(ENVIRONMENTS)))
        return ""
    return str(value)


def flag(field: str, value: object, faults: ValidationErrors) -> bool:
    """Return true or false."""
    if not isinstance(value, bool):
        faults.add(field, ErrorText("not_a_flag"))
        return False
    return value


def signature(value: object, faults: ValidationErrors) -> t.Literal["v1", "v1a"]:
    """Return the scheme that secrets are made for."""
    if value not in ("v1", "v1a"):
        faults.add("signature", ErrorText("unknown_signature"))
        return "v1"
    return value


def secret(value: object, kind: t.Literal["v1", "v1a"], faults: ValidationErrors) -> signing.Secret | None:
    """Return the secret to sign with: the customer's own, or a new one. What was given never reaches a message."""
    if value is None:
        return signing.generate(kind)
    try:
        given = signing.parse(value) if isinstance(value, str) else None
    except SecretError as error:
        faults.add("secret", error.args[0])
        return None
    if given is None or given.kind != kind:
        faults.add("secret", ErrorText("secret_of_other_scheme", scheme=kind))
        return None
    if signing.is_guessable(given):
        faults.add("secret", ErrorText("secret_guessable"))
        return None
    return given


def look_up(state: AppState, value: str) -> list[str]:
    """Return what is wrong with a URL when its name is looked up as well."""
    faults = ValidationErrors()
    url(state, value, faults, resolve=True)
    return faults.fields.get("url", [])


def examine(state: AppState, values: Mapping[str, t.Any]) -> dict[str, list[str]]:
    """Return what is wrong with the fields that are there, so that a form can be told everything at once.

    Only what can be judged by itself, and no name is looked up: a creation or change may still be refused for what is
    missing, or for what the owner's other subscriptions exclude.
    """
    faults = ValidationErrors()
    kind = signature(values.get("signature", "v1"), faults)
    found: Wanted = {}
    if "events" in values or "channels" in values:
        found = wanted(state, values.get("events"), values.get("channels"), faults)
    checks: dict[str, t.Callable[[t.Any], object]] = {
        "url": lambda value: url(state, value, faults),
        "description": lambda value: description(value, faults),
        "environment": lambda value: environment(state, value, faults),
        "retry": lambda value: retry_(value, faults),
        "rate_limit": lambda value: rate_limit(value, faults),
        "metadata": lambda value: metadata(state, merged({}, value), faults),
        "headers": lambda value: headers_(state, None, value, faults),
        "format": lambda value: format_(state, value, found, faults),
        "secret": lambda value: secret(value, kind, faults),
    }
    for name, check in checks.items():
        if name in values:
            check(values[name])
    return faults.fields
