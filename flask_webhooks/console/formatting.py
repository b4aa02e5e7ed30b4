"""How instants, durations, sizes, states and failures are written."""

from __future__ import annotations

import json
import typing as t
from datetime import UTC, datetime, timedelta

from flask import Blueprint

from ..models import State
from ..outcome import Failure
from ..queries.bounds import fit, html_size
from ..visible import visible
from .i18n import _

__all__ = ["add_filters", "pretty", "reason_label", "remedy", "text_of"]

NOTHING = "\u2013"
"""Shown in the place of a missing value."""
LONGEST_SHOWN = 128 * 1024
"""Bytes of HTML that one text may have; pages give less room to texts of receivers and customers."""


def add_filters(blueprint: Blueprint) -> None:
    """Register the filters. Their names have a prefix, because they are added to the Jinja environment of the host."""
    filters: dict[str, t.Callable[..., str]] = {
        "wh_ago": ago,
        "wh_iso": iso,
        "wh_utc": utc,
        "wh_span": span,
        "wh_seconds": seconds,
        "wh_percent": percent,
        "wh_bytes": size,
        "wh_number": number,
        "wh_state": state_label,
        "wh_reason": reason_label,
        "wh_remedy": remedy,
        "wh_pretty": pretty,
        "wh_host": host,
        "wh_path": path,
    }
    for name, function in filters.items():
        blueprint.add_app_template_filter(function, name)


def iso(moment: datetime) -> str:
    """Return `2026-03-01T12:00:00Z`, for the `datetime` attribute."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def utc(moment: datetime) -> str:
    """Return `2026-03-01 12:00:00 UTC`, which is shown without JavaScript, and on hover."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def ago(moment: datetime) -> str:
    """Return `3 min ago`, or `in 3 min`."""
    away = (datetime.now(UTC) - moment).total_seconds()
    if abs(away) < 5:
        return _("just now")
    length = span(abs(away))
    return _("%(length)s ago", length=length) if away > 0 else _("in %(length)s", length=length)


def span(length: float | timedelta) -> str:
    """Return seconds in one rounded unit: `45 s`, `3 min`, `5 h`, `12 d`."""
    whole = length.total_seconds() if isinstance(length, timedelta) else length
    if whole < 59.5:  # 59.5 and more would round to 60
        return _("%(n)s s", n=f"{whole:.0f}")
    if whole < 59.5 * 60:
        return _("%(n)s min", n=f"{whole / 60:.0f}")
    if whole < 47.5 * 3600:
        return _("%(n)s h", n=f"{whole / 3600:.0f}")
    return _("%(n)s d", n=f"{whole / 86400:.0f}")


def seconds(length: float | None) -> str:
    """Return a short duration with up to three digits: `0.4 ms`, `45 ms`, `1.20 s`."""
    if length is None:
        return NOTHING
    if length < 0.01:
        return f"{length * 1000:.1f} ms"
    return f"{length * 1000:.0f} ms" if length < 1 else f"{length:.2f} s"


def percent(share: float | None) -> str:
    """Return `99.8 %`, rounded down: a single failure must not show as 100 %."""
    if share is None:
        return NOTHING
    if share == 1:
        return "100 %"
    return f"{int(share * 1000) / 10:.1f} %"


def size(count: int) -> str:
    """Return bytes as `840 B`, `12.4 KiB`."""
    return f"{count} B" if count < 1024 else f"{count / 1024:.1f} KiB"


def number(count: int) -> str:
    """Return a number with narrow spaces between thousands."""
    return f"{count:,}".replace(",", "\u202f")


def state_label(state: str) -> str:
    """Return the state of a delivery, subscription or replay as a word."""
    labels = {
        State.PENDING: _("Pending"),
        "retrying": _("Retrying"),
        State.DELIVERED: _("Delivered"),
        State.FAILED: _("Failed"),
        State.HELD: _("Held"),
        State.CANCELLED: _("Cancelled"),
        State.BROKEN: _("Broken"),
        "on": _("On"),
        "off": _("Off"),
        "failing": _("Failing"),
        "paused": _("Paused"),
        "disabled": _("Disabled"),
        "running": _("Running"),
        "done": _("Done"),
        "missed": _("Missed"),
    }
    return labels.get(state, state)


def reason_label(reason: str | None) -> str:
    """Return a class of failure, or the reason why a delivery waits or ended, in a few words."""
    labels = {
        "dns": _("Name not found"),
        "blocked_address": _("Address refused"),
        "connect": _("No connection"),
        "tls": _("TLS failed"),
        "timeout": _("Timed out"),
        "protocol": _("Not valid HTTP"),
        "too_large": _("Response too large"),
        "redirect": _("Redirected"),
        "http_4xx": _("Refused by the receiver"),
        "http_5xx": _("Receiver failed"),
        "poison": _("Could not be built"),
        "purged": _("Message purged"),
        "unknown_event": _("Event no longer in the catalogue"),
        "unknown_format": _("Format no longer registered"),
        "off": _("Webhook is off"),
        "gone": _("The receiver answered 410 Gone"),
        "failing": _("Failed for too long"),
        "discarded": _("Discarded"),
        "deselected": _("Event deselected before it was sent"),
        "removed": _("Webhook removed"),
        "by_hand": _("Cancelled manually"),
        "outdated": _("A newer event was sent instead"),
        "broken": _("Its data could not be rendered"),
        "other_environment": _("Of another environment"),
    }
    return labels.get(reason or "", reason or "")


def remedy(failure: str | None) -> str:
    """Return one line on how to fix a class of failure; empty for other reasons."""
    return _(Failure(failure).hint) if failure in set(Failure) else ""


def text_of(raw: bytes | None) -> str:
    """Return bytes of a receiver or customer as text: invalid UTF-8 is replaced, control characters become visible."""
    return shown((raw or b"").decode("utf-8", "replace"))


def shown(text: str) -> str:
    """Return text of a receiver or customer with visible control characters; the CR of a line's end is dropped."""
    return visible(text.replace("\r", ""))


def pretty(text: str | bytes | None, most: int = LONGEST_SHOWN) -> str:
    """Return JSON indented if that fits, any other text unchanged; either is cut at `most`.

    :param most: bytes of HTML.
    """
    plain = text_of(text) if isinstance(text, bytes) or text is None else text
    return fit(_indented(plain, most), most, html_size)


def _indented(plain: str, most: int) -> str:
    # Indenting deeply nested JSON multiplies its size: encode it piece by piece, and stop when it no longer fits.
    parts: list[str] = []
    room = most
    try:
        for part in json.JSONEncoder(indent=2, ensure_ascii=False).iterencode(json.loads(plain)):
            parts.append(part)
            room -= html_size(part)
            if room < 0:
                return plain
    except (ValueError, RecursionError):
        return plain
    return text_of("".join(parts).encode("utf-8", "replace"))


def host(url: str) -> str:
    """Return the beginning of a URL: `https://example.com`."""
    scheme, _sep, rest = url.partition("://")
    return f"{scheme}://{rest.partition('/')[0].partition('?')[0]}"


def path(url: str) -> str:
    """Return the part of a URL after the host."""
    return url[len(host(url)) :]
