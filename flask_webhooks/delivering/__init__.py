"""The delivery engine: from due deliveries to signed requests and recorded attempts.

=============  ===================================================================
`parcels`      destinations and parcels; rendering, signing
`attempting`   one attempt, without a database
`sending`      the threads that make attempts
`lanes`        the lanes that a worker holds, and for how long
`reading`      what is due becomes parcels
`outdated`     what a backfill must not send any more
`recording`    results written back in batches
`run`          the coordinator: all of this, again and again
`trouble`      when the database cannot be reached
`trial`        one test request, now
=============  ===================================================================
"""

from .lanes import lease_length
from .run import Report, Run
from .trouble import TROUBLE, Patience, first_line

__all__ = ["TROUBLE", "Patience", "Report", "Run", "first_line", "lease_length"]
