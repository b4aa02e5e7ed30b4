"""Which channels may not be held together.

A pure function over names, so that the API can ask it inside the lock that makes the answer hold.
"""

from __future__ import annotations

import typing as t

from ..errors import ErrorText, ExclusivityError

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ALL = "*"


def check_exclusive(exclusive: Mapping[str, str], patterns: Iterable[str], held: Iterable[str] = ()) -> None:
    """Refuse an exclusive channel together with any other.

    :param exclusive: exclusive channels to their scope, `subscription` or `owner`.
    :param patterns: what the subscription is to listen to: `ledgers.created`, `ledgers.*`, `*`.
    :param held: patterns of the owner's other active subscriptions in the same environment. They matter to
        the scope `owner` alone.
    :raises ExclusivityError: names the channels and what to unsubscribe; its `fields` has `events`.
    """
    mine, theirs = _by_channel(patterns), _by_channel(held)
    for channel, scope in exclusive.items():
        rest = _without(mine, channel)
        if channel in mine and rest:
            others, named = _named(rest)
            raise _refusal(ErrorText("exclusive_alone", channel=channel, others=others, patterns=named))
        if scope != "owner":
            continue
        elsewhere = _without(theirs, channel)
        if channel in mine and elsewhere:
            others, named = _named(elsewhere)
            raise _refusal(ErrorText("exclusive_here", channel=channel, others=others, patterns=named))
        if channel in theirs and rest:
            raise _refusal(ErrorText("exclusive_elsewhere", channel=channel, patterns=_named(rest)[1]))


def _by_channel(patterns: Iterable[str]) -> dict[str, list[str]]:
    # "*" stands for itself: it means other channels, whichever they are today, and never an exclusive one.
    found: dict[str, list[str]] = {}
    for pattern in patterns:
        found.setdefault(pattern.partition(".")[0], []).append(pattern)
    return found


def _without(channels: Mapping[str, list[str]], channel: str) -> dict[str, list[str]]:
    return {name: patterns for name, patterns in channels.items() if name != channel}


def _named(channels: Mapping[str, list[str]]) -> tuple[str, str]:
    """Return channels for a sentence, and their patterns."""
    names = ", ".join("every channel (*)" if name == ALL else f'"{name}"' for name in channels)
    return names, ", ".join(dict.fromkeys(pattern for group in channels.values() for pattern in group))


def _refusal(text: ErrorText) -> ExclusivityError:
    return ExclusivityError(text, {"events": [text]})
