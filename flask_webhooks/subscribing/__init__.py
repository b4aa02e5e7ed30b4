"""Subscriptions made, changed and removed; their secrets.

The law of this room: whatever looks at all subscriptions of an owner (exclusivity, limits) does so behind the lock of
that owner's row, which is the *first* statement of the transaction, or of our savepoint in one of the host's. Nothing
here commits: the session is the caller's own and short, with nothing of the host's in it. Signals and the bell wait for
its commit; in a transaction of the host's, for that of the host.

============== ==========================================================
`fields`       what the customer wrote, checked; every mistake at once
`headers`      custom headers, the part of it that could be turned against a receiver
`locking`      one change of an owner's subscriptions at a time
`changing`     lock, look, write
`reading`      what is shown of one, and lists of them
`joining`      inside a transaction of the host's
`secrets`      reveal and rotate
`certificates` client certificates, by an operator
`afterwards`   what waits for the commit
============== ==========================================================
"""

from __future__ import annotations

from .afterwards import afterwards
from .certificates import give_client_certificate, take_client_certificate
from .changing import change, create, find, remove
from .fields import examine, look_up
from .headers import names
from .joining import joined
from .reading import listed, shown
from .secrets import reveal, reveal_one, rotate, secret_id

__all__ = [
    "afterwards",
    "change",
    "create",
    "examine",
    "find",
    "give_client_certificate",
    "joined",
    "listed",
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
