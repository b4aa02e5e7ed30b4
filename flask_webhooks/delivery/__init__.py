"""One delivery, apart from the process that makes it: its request, its attempt, and what the log keeps of the attempt.

The law of this room: nothing here leases, loops or waits. Workers call it, and so do API and console for test requests.

=============  ===========================================================
`destination`  a subscription, opened for sending
`request`      a delivery task, rendered and signed
`attempt`      build a request, send it, decide what follows; no database
`attempt_row`  the row of an attempt, of bounded size
`log_line`     the log line and the signals of an attempt
`test_send`    one test request, made at once
`body`         the body of a delivery, for its page and the API
=============  ===========================================================
"""

from .attempt import AttemptResult, cancelled_result, crashed_result, make_attempt
from .attempt_row import attempt_row, drop_response
from .body import CHANGED, Body, body_of
from .destination import Destination, destinations
from .log_line import announce_attempt, is_announced
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
    "cancelled_result",
    "crashed_result",
    "destinations",
    "drop_response",
    "is_announced",
    "is_of_backfill",
    "make_attempt",
    "render",
    "run_probe",
    "send_test_request",
    "utcnow",
]
