"""Creates, changes and removes subscriptions, and manages their secrets.

The law of this room: checks of all subscriptions of an owner (exclusivity, limits) run behind the lock of the owner's
row, which is the *first* statement of the transaction, or of our savepoint in one of the host. The caller commits,
except where a docstring says otherwise. Its session is short and has no objects of the host. Signals and bell wait
for its commit; in a transaction of the host, for the host's commit.

===================  ========================================================================
`input`              the fields of a subscription that a caller gives
`validation`         checks a customer's input, and reports every mistake at once
`validation_errors`  collects the mistakes by field
`patterns`           checks the events of the input and their envelope
`headers`            checks custom headers, which could be used to attack a receiver
`owner_lock`         one change of an owner's subscriptions at a time
`changes`            create, change, find, remove
`switching`          switches off and on; held deliveries
`lists`              lists of subscriptions, and the fields that are shown
`joined_session`     our session inside a transaction of the host
`secrets`            reveals and rotates signing secrets
`certificates`       client certificates, which only an operator sets
`after_commit`       work that runs after the commit
`reencryption`       seals every stored secret again with the first key
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
