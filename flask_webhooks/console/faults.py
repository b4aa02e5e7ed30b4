"""What the checks below this door say of a mistake, in words of a form and in the visitor's language.

Those checks know no request and write for callers of the API too; so each of their sentences is known again here by
its shape. What is not known is shown as it is.
"""

from __future__ import annotations

import re
import typing as t

from .i18n import N_, _

__all__ = ["KNOWN", "told"]

URL: tuple[str, ...] = (
    N_("The URL must begin with https://."),
    N_("The URL must begin with https://: plain http is switched off here."),
    N_("The URL must have the form https://host/path or https://host:port/path."),
    N_("The URL must not contain spaces, control or invisible characters, or backslashes."),
    N_("The URL must not have a fragment (#...): it never reaches a server."),
    N_("The URL must not contain a user name or password: use a header of the subscription."),
    N_("The URL is longer than %(most)s characters."),
    N_("The port must be a number from 1 to 65535."),
    N_("Port %(port)s cannot be used for webhooks: of those below 1024, only 80 and 443 can be."),
    N_("Port %(port)s cannot be used for webhooks: it is the port of %(service)s."),
    N_("The brackets of the URL do not hold an IPv6 address."),
    N_("The host looks like an IP address: write it as four decimal numbers."),
    N_("The host is not a valid name: check its spelling."),
    N_("The host is not a valid international name: check its spelling."),
    N_("This address cannot be used for webhooks: use one that is reachable from the public internet."),
)
OTHERS: tuple[str, ...] = (
    N_("Give text of at most %(most)s characters, without NUL."),
    N_("There are %(count)s listeners; at most %(most)s are allowed."),
    N_("There are %(count)s headers; at most %(most)s are allowed."),
    N_("%(name)s is no header name: use letters, digits and hyphens, at most %(most)s."),
    N_("%(name)s cannot be set: it belongs to the connection or to the webhook itself."),
    N_(
        "The value of %(name)s must be printable ASCII without line breaks, without spaces at its ends, at most "
        "%(most)s characters."
    ),
    N_("A name is there twice: the case of its letters does not matter, nor whether it has - or _."),
    N_("Names and values have %(size)s characters together; at most %(most)s are allowed."),
    N_("%(name)s is not offered for %(events)s. Offered: %(allowed)s."),
    N_("There are %(count)s subscriptions in %(name)s already, which is the limit. Remove one first."),
    N_("%(count)s secrets are in force already. Wait for one to run out, or give the overlap 0."),
    N_("Give seconds from 0 to %(most)s (7 days)."),
    N_(
        "The waits are too short: give at least %(least)s second each, and from wait %(many)s on at least %(more)s."
    ),
    N_("The subscription is switched off. Switch it on first."),
    N_("The replay %(id)s is still running. Wait for its end, or cancel it."),
    N_(
        'The channel "%(channel)s" is exclusive: a subscription that listens to it may listen to nothing else. It '
        'cannot be held together with %(others)s. To take "%(again)s", unsubscribe from %(patterns)s; to keep those, '
        "unsubscribe from %(own)s."
    ),
    N_(
        'The channel "%(channel)s" is exclusive: while one subscription listens to it, no other of the same owner may '
        "listen to anything else. The owner's other active subscriptions hold %(others)s: unsubscribe them from "
        '%(patterns)s first, or leave "%(again)s" out here.'
    ),
    N_(
        'The channel "%(channel)s" is exclusive: while one subscription listens to it, no other of the same owner may '
        'listen to anything else. Another active subscription holds "%(again)s": unsubscribe that from %(own)s first, '
        "or leave %(patterns)s out here."
    ),
)
IN_A_FORM: t.Mapping[str, str] = {
    'Name at least one event, such as "invoices.created", "invoices.*" or "*".': N_(
        "Choose at least one event."
    ),
    "%(given)s is no retry schedule. Use 'standard', 'none', or a list of at most %(count)s waits in seconds, each "
    "from 0 to %(most)s, such as [5, 300, 3600].": N_(
        "Give at most %(count)s waits in seconds, each from 0 to %(most)s, such as 5, 300, 3600."
    ),
    "Give requests a second, from %(least)s to %(most)s, or null for no limit.": N_(
        "Give a number of requests a second, from %(least)s to %(most)s, or leave it empty."
    ),
    '%(count)s held. Say what becomes of that: "send" delivers now, "discard" cancels.': N_(
        "Deliveries are held. Choose what becomes of them."
    ),
}
"""What is said otherwise where there is a form and no JSON."""
KNOWN: t.Mapping[str, str] = {**{text: text for text in (*URL, *OTHERS)}, **IN_A_FORM}
"""Shape to text, both with `%(name)s` for what differs."""


def _pattern(shape: str) -> re.Pattern[str]:
    parts = re.split(r"%\((\w+)\)s", shape)
    return re.compile(
        "".join(f"(?P<{part}>.+?)" if at % 2 else re.escape(part) for at, part in enumerate(parts)), re.DOTALL
    )


_PATTERNS = [(_pattern(shape), text) for shape, text in KNOWN.items()]


def told(message: str) -> str:
    """Return a sentence about a mistake as this visitor reads it."""
    for pattern, text in _PATTERNS:
        match = pattern.fullmatch(message)
        if match is not None:
            return _(text) % match.groupdict() if match.groupdict() else _(text)
    return message
