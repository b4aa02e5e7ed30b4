"""The room of Redis and RQ: the doorbell that wakes workers, and the embedded server.

The law of this room: Redis carries no event, and may lose all of its data. It holds only "there is work": a flag that
says that a wake-up is waiting already, and RQ's queue with at most one job for many deliveries. A worker clears the
flag *before* it reads the database for the last time, so a commit after that read rings again, and no delivery is
missed. Workers also poll the database by themselves.

==============  ============================================================================
`redis_client`  clients for each kind of URL: workers retry and wait, web requests do not
`doorbell`      the doorbell, and the thread that rings it
`embedded`      the Valkey server in the app's instance folder
`worker`        RQ's worker, which waits while Redis is unreachable
==============  ============================================================================
"""

from .doorbell import JOB, Bell, rung
from .embedded import Embedded
from .redis_client import connect, fault_in, shown
from .worker import work

__all__ = ["JOB", "Bell", "Embedded", "connect", "fault_in", "rung", "shown", "work"]
