"""Checks a customer's input for a subscription against the catalogue, the guard and the limits.

Every function collects into `ValidationErrors`, so that the answer names all mistakes at once. Nothing here reads the
database; only `url` resolves a name, and only with `resolve`.
"""

from __future__ import annotations

import json
import typing as t
from collections.abc import Mapping

from .. import payload, signing
from ..catalog import listed
from ..config import ENVIRONMENTS
from ..errors import ErrorText, PayloadError, SecretError, SubscriptionError
from ..models import Subscription
from ..principal import ALL_OWNERS, is_owner
from . import headers
from .input import PLAIN, SubscriptionInput, Unset
from .patterns import Patterns, format_of, patterns_of
from .validation_errors import ValidationErrors

if t.TYPE_CHECKING:
    from ..state import AppState

__all__ = ["check", "environment", "examine", "listening", "look_up", "owner", "secret", "url"]

DEEPEST = 20
"""Levels of metadata: MariaDB keeps no JSON that has more than 32."""


def check(
    state: AppState, given: SubscriptionInput, faults: ValidationErrors, row: Subscription
) -> tuple[dict[str, t.Any], Patterns]:
    """Check all given fields except the URL, the environment and the secret.

    :param row: the stored subscription; a new one has only its id.
    :returns: the values to store by column, and the patterns that the subscription then listens to.
    """
    values = given.given()
    columns = {name: is_kept(values[name], faults) for name, is_kept in PLAIN.items() if name in values}
    if "metadata" in values:
        columns["details"] = _metadata(state, row.details or {}, given.metadata, faults)
    if "headers" in values:
        columns["headers"] = _headers(state, row, given.headers, faults)
    patterns = listening(row)
    if given.names_events:
        patterns = patterns_of(state, given.events, given.channels, faults)
    if "format" in values or given.names_events:  # a format must be offered for each event
        columns["format"] = format_of(state, values.get("format", row.format), patterns, faults)
    return columns, patterns


def examine(state: AppState, given: SubscriptionInput) -> dict[str, list[str]]:
    """Return what is wrong with the fields that are given, so that a form can show all mistakes at once.

    It checks each field by itself and resolves no name. So a creation or change may still be refused, for a missing
    field or because the owner's other subscriptions exclude it.
    """
    faults = ValidationErrors()
    if not isinstance(given.url, Unset):
        url(state, given.url, faults)
    if not isinstance(given.environment, Unset):
        environment(state, given.environment, faults)
    columns, _ = check(state, given, faults, Subscription(id=""))
    if not isinstance(given.secret, Unset):
        secret(given.secret, columns.get("signature", "v1"), faults)
    return faults.fields


def listening(row: Subscription) -> Patterns:
    """Return the stored patterns of a subscription."""
    return {listener.event: list(listener.includes) for listener in row.listeners}


def look_up(state: AppState, value: str) -> list[str]:
    """Return the mistakes of a URL, those found by resolving its name included."""
    faults = ValidationErrors()
    url(state, value, faults, resolve=True)
    return faults.fields.get("url", [])


def url(state: AppState, value: object, faults: ValidationErrors, *, resolve: bool = False) -> str:
    """Return the normal form of a URL that the guard accepts.

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


def owner(value: object, faults: ValidationErrors) -> str:
    """Return the owner: a text that is valid as the owner of a principal."""
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


def secret(value: object, kind: t.Literal["v1", "v1a"], faults: ValidationErrors) -> signing.Secret | None:
    """Return the secret to sign with: the customer's own, or a new one. No error message contains the given secret."""
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


def _headers(state: AppState, row: Subscription, given: object, faults: ValidationErrors) -> str | None:
    """Merge the given custom headers into the stored ones; return them encrypted."""
    if given is None:
        return None
    checked, wrong = headers.check(given, state.settings.header_limit)
    if wrong:
        faults.add("headers", *wrong)
        return None
    together = headers.merged(headers.open_headers(state.vault, row.headers, row.id), checked)
    faults.add("headers", *headers.check(together, state.settings.header_limit)[1])
    return headers.seal(state.vault, together, row.id)


def _metadata(
    state: AppState, known: Mapping[str, t.Any], given: object, faults: ValidationErrors
) -> dict[str, t.Any]:
    """Merge the given metadata into the stored ones; None removes a name (RFC 7396, first level only). The result is an
    object of at most `WEBHOOKS_METADATA_LIMIT` bytes of JSON."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        faults.add("metadata", ErrorText("metadata_not_an_object"))
        return {}
    value = {name: each for name, each in {**known, **given}.items() if each is not None}
    try:
        size = len(payload.encode(value, root="metadata").encode())
    except PayloadError as error:
        faults.add("metadata", ErrorText("metadata_not_json", reason=str(error)))
        return {}
    if size > state.settings.metadata_limit:
        faults.add("metadata", ErrorText("metadata_too_large", size=size, most=state.settings.metadata_limit))
    if _is_deeper(value, DEEPEST):
        faults.add("metadata", ErrorText("metadata_too_deep", most=DEEPEST))
    # An escaped backslash before `u0000` is text and makes no NUL, so it is removed first.
    if r"\u0000" in json.dumps(value).replace(r"\\", ""):
        faults.add("metadata", ErrorText("metadata_nul"))
    return value


def _is_deeper(value: object, most: int) -> bool:
    """Whether objects and lists are nested deeper than `most`; a loop, because Python limits recursion."""
    level = [value]
    for _ in range(most):
        level = [
            inner
            for each in level
            if isinstance(each, Mapping | list)
            for inner in (each.values() if isinstance(each, Mapping) else each)
        ]
    return any(isinstance(each, Mapping | list) for each in level)
