"""The delivery engine: from due deliveries to signed requests and recorded attempts.

============  ====================================================================
`parcels`     destinations and parcels; rendering, signing
`attempting`  one attempt, without a database
`recording`   results written back in batches
`run`         the coordinator and its senders
============  ====================================================================
"""

from .run import Report, Run

__all__ = ["Report", "Run"]
