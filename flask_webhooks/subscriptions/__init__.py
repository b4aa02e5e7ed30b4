"""Subscriptions made, changed and removed; their secrets.

The law of this room: whatever looks at all subscriptions of an owner (exclusivity, limits) does so behind the lock of
that owner's row, which is the *first* statement of the transaction, or of our savepoint in one of the host's. Nothing
here commits: the session is the caller's own and short, with nothing of the host's in it. Signals and the bell wait for
its commit; in a transaction of the host's, for that of the host.

===================  ========================================================================
`input`              what is given of a subscription, and what it says of itself
`validation`         what the customer wrote, checked; every mistake at once
`validation_errors`  collects what is wrong, by field
`patterns`           the part of it that is about events and their envelope
`headers`            custom headers, the part of it that could be turned against a receiver
`owner_lock`         one change of an owner's subscriptions at a time
`changes`            lock, look, write
`switching`          off and on, and what was held meanwhile
`lists`              what is shown of one, and lists of them
`joined_session`     inside a transaction of the host's
`secrets`            reveal and rotate
`certificates`       client certificates, by an operator
`after_commit`       what waits for the commit
`reencryption`       every stored secret sealed anew with the first key
===================  ========================================================================
"""

from __future__ import annotations

from .after_commit import afterwards
from .certificates import give_client_certificate, take_client_certificate
from .changes import change, create, find, remove
from .headers import names
from .input import UNSET, SubscriptionInput, Unset
from .joined_session import joined
from .lists import listed, listened_to, shown
from .secrets import OVERLAP, reveal, reveal_one, rotate, secret_id
from .validation import examine, look_up

__all__ = [
    "OVERLAP",
    "UNSET",
    "SubscriptionInput",
    "Unset",
    "afterwards",
    "change",
    "create",
    "examine",
    "find",
    "give_client_certificate",
    "joined",
    "listed",
    "listened_to",
    "look_up",
    "names",
    "remove",
    "reveal",
    "reveal_one",
    "rotate",
    "secret_id",
    "shown",
    "take_client_certificate",
]
