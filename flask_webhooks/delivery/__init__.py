"""One delivery without a process: the request that is made of it, the attempt, and what is kept of it.

The law of this room: nothing here leases, loops or waits; workers, the API and the console call it alike.

=============  ===========================================================
`destination`  a subscription, opened for sending
`request`      a delivery that is to be sent; rendering, signing
`attempt`      build a request, send it, decide what follows; no database
`attempt_log`  the row of an attempt, within bounds
`announce`     the line and the signals of an attempt
`test_send`    one test request, now
`body`         the body of a delivery, for those who look at it afterwards
=============  ===========================================================
"""

from .announce import announce_attempt, is_announced
from .attempt import AttemptResult, called_off, crashed, make_attempt
from .attempt_log import attempt_row, drop_answer
from .body import CHANGED, Body, body_of
from .destination import Destination, destinations
from .request import (
    MASK,
    DeliveryTask,
    RequestError,
    is_of_backfill,
    render,
    utcnow,
)
from .test_send import TEST_EVENT, Subject, run_probe, send_test_request

__all__ = [
    "CHANGED",
    "MASK",
    "TEST_EVENT",
    "AttemptResult",
    "Body",
    "DeliveryTask",
    "Destination",
    "RequestError",
    "Subject",
    "announce_attempt",
    "attempt_row",
    "body_of",
    "called_off",
    "crashed",
    "destinations",
    "drop_answer",
    "is_announced",
    "is_of_backfill",
    "make_attempt",
    "render",
    "run_probe",
    "send_test_request",
    "utcnow",
]
