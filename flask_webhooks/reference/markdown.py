"""A page in Markdown for the customers' documentation: every event, with a sample body in every format it allows."""

from __future__ import annotations

import json
import typing as t

from .examples import bodies
from .listing import includes

if t.TYPE_CHECKING:
    from ..catalog import Channel, EventType
    from ..state import AppState

__all__ = ["page"]

_INTRODUCTION = """\
Each event is a `POST` of JSON to the URL that you have subscribed. Answer with a 2xx status as soon as you have taken
it; {otherwise} The header `webhook-id` is the same on every retry: keep the ones you have processed, and you will never
process an event twice. `webhook-timestamp` and `webhook-signature` are signed with your secret by
[Standard Webhooks](https://www.standardwebhooks.com), whose libraries verify them in any language. `webhook-event`,
`webhook-occurred-at` and `webhook-sequence` tell which of two events about one object is newer.
"""


def page(state: AppState) -> str:
    """Return the page. Texts of the catalogue are taken as Markdown, as their authors wrote them."""
    channels = [channel for channel in state.catalog.channels.values() if channel.events]
    parts = [f"# {state.catalog.title}: webhooks", _introduction(state), _contents(channels)]
    for channel in channels:
        parts.append(_channel(state, channel))
        parts += [_event(state, event) for event in channel.events.values()]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _introduction(state: AppState) -> str:
    retries = [_seconds(state, event) for event in state.catalog.events.values()]
    if not any(retries):
        otherwise = "anything else is a failure, and the event is not sent again."
    elif all(retries):
        otherwise = "anything else is a failure, and the event is sent again later."
    else:
        otherwise = (
            "anything else is a failure, and the event is sent again later unless it says otherwise below."
        )
    return _INTRODUCTION.format(otherwise=otherwise)


def _seconds(state: AppState, event: EventType) -> t.Sequence[float]:
    """The waits before further attempts; empty: no retries."""
    if event.retry is None:
        return state.settings.retry
    return () if event.retry == "none" else (0.0,) if isinstance(event.retry, str) else event.retry


def _contents(channels: t.Sequence[Channel]) -> str:
    rows = ["| event | when |", "|---|---|"]
    for channel in channels:
        for event in channel.events.values():
            rows.append(f"| [`{event.name}`](#{_anchor(event.name)}) | {_cell(_about(event))} |")
    return "\n".join(rows)


def _about(event: EventType) -> str:
    text = event.description or f"{event.title}."
    return f"**Deprecated.** {text}" if event.deprecated is not None else text


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _anchor(heading: str) -> str:
    """The id that GitHub and compatible renderers give a heading."""
    return "".join(letter for letter in heading.lower() if letter.isalnum() or letter in "_-")


def _channel(state: AppState, channel: Channel) -> str:
    lines = [f"## {channel.title}"]
    if channel.description:
        lines.append(channel.description)
    if channel.exclusive is not None:
        whose = "subscription" if channel.exclusive.value == "subscription" else "customer"
        lines.append(f"Exclusive: a {whose} that listens to `{channel.name}` listens to nothing else.")
    offered = ", ".join(f"`{name}`" for name in includes(state, channel))
    lines.append(
        f"To have more in `data`, ask for these includes: {offered}. `changes` has what an update changed."
    )
    return "\n\n".join(lines)


def _event(state: AppState, event: EventType) -> str:
    lines = [f"### {event.name}", event.description or f"{event.title}."]
    if event.deprecated is not None:
        instead = event.deprecated.replacement
        use = f" Use [`{instead}`](#{_anchor(instead)})." if instead else ""
        lines.append(f"**Deprecated:** {event.deprecated.reason}{use}")
    if not _seconds(state, event):
        lines.append("A failed request is not sent again.")
    for name, body in bodies(state, event).items():
        note = " (unless your subscription asks for another)" if name == event.format else ""
        if len(event.formats) > 1:
            lines.append(f"In the format `{name}`{note}:")
        lines.append(_code(body) if body is not None else "No example: its author knows what it looks like.")
    return "\n\n".join(lines)


def _code(body: t.Any) -> str:
    return f"```json\n{json.dumps(body, indent=2, ensure_ascii=False)}\n```"
