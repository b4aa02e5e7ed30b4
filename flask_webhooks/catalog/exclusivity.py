"""Which channels may not be held together.

A pure function over names, so that the API can ask it inside the lock that makes the answer hold.
"""

from __future__ import annotations

import typing as t

from ..errors import ExclusivityError

if t.TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ALL = "*"


def check_exclusive(exclusive: Mapping[str, str], patterns: Iterable[str], held: Iterable[str] = ()) -> None:
    """Refuse an exclusive channel beside any other.

    :param exclusive: exclusive channels to their scope, `subscription` or `owner`.
    :param patterns: what the subscription is to listen to: `ledgers.created`, `ledgers.*`, `*`.
    :param held: patterns of the owner's other active subscriptions in the same environment. They matter to
        the scope `owner` alone.
    :raises ExclusivityError: names the channels and what to unsubscribe; its `fields` has `events`.
    """
    mine, theirs = _by_channel(patterns), _by_channel(held)
    for channel, scope in exclusive.items():
        beside = _without(mine, channel)
        if channel in mine and beside:
            raise _refusal(channel, beside, "a subscription that listens to it may listen to nothing else")
        if scope != "owner":
            continue
        others = _without(theirs, channel)
        law = "while one subscription listens to it, no other of the same owner may listen to anything else"
        if channel in mine and others:
            raise _refusal(channel, others, law, elsewhere=True)
        if channel in theirs and beside:
            raise _refusal(channel, beside, law, held=True)


def _by_channel(patterns: Iterable[str]) -> dict[str, list[str]]:
    # "*" stands for itself: it means other channels, whichever they are today, and never an exclusive one.
    found: dict[str, list[str]] = {}
    for pattern in patterns:
        found.setdefault(pattern.partition(".")[0], []).append(pattern)
    return found


def _without(channels: Mapping[str, list[str]], channel: str) -> dict[str, list[str]]:
    return {name: patterns for name, patterns in channels.items() if name != channel}


def _refusal(
    channel: str, others: Mapping[str, list[str]], law: str, *, elsewhere: bool = False, held: bool = False
) -> ExclusivityError:
    names = ", ".join("every channel (*)" if name == ALL else f'"{name}"' for name in others)
    patterns = ", ".join(dict.fromkeys(pattern for group in others.values() for pattern in group))
    if held:
        remedy = (
            f'Another active subscription holds "{channel}": unsubscribe that from {channel}.* first, '
            f"or leave {patterns} out here."
        )
    elif elsewhere:
        remedy = (
            f"The owner's other active subscriptions hold {names}: unsubscribe them from {patterns} first, "
            f'or leave "{channel}" out here.'
        )
    else:
        remedy = (
            f'It cannot be held together with {names}. To take "{channel}", unsubscribe from {patterns}; '
            f"to keep those, unsubscribe from {channel}.*."
        )
    message = f'The channel "{channel}" is exclusive: {law}. {remedy}'
    return ExclusivityError(message, {"events": [message]})
