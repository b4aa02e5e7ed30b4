"""The room of Redis and RQ: the doorbell that wakes workers, and the embedded server.

Redis carries no event. It only knows "there is work": a flag that says a wake-up is already waiting, and RQ's queue
with at most one job for many deliveries. The flag is cleared *before* a worker looks at the database for the last
time, so whoever commits after that look rings again, and nobody's work is overlooked. Losing all of Redis loses
nothing: workers also look at the database by themselves.

==============  ===================================================================
`redis_client`  clients for each kind of URL: patient for workers, not for requests
`doorbell`      the doorbell, and the thread that rings it
`embedded`      the Valkey under the app's instance folder
`worker`        RQ's worker, which bears that Redis is away
==============  ===================================================================
"""

from .doorbell import JOB, Bell, rung
from .embedded import Embedded
from .redis_client import connect, fault_in, shown
from .worker import work

__all__ = ["JOB", "Bell", "Embedded", "connect", "fault_in", "rung", "shown", "work"]
