"""What `flask webhooks check` looks at, part by part. Nothing is changed but the lock file, and that only if asked.

===============  =====================================================================
`findings`       the result of a check: errors, warnings, notes
`configuration`  every `WEBHOOKS_*` key
`catalog`        the catalogue with the models and schemas it names, and the lock file
`services`       database and Redis
`certificates`   client certificates that are about to end
`rows`           the newest row of each channel, dumped
`production`     what customers must not find
===============  =====================================================================
"""

from __future__ import annotations

from .catalog import check_catalog, check_lock, check_urls, lock_path
from .certificates import check_certificates
from .configuration import check_configuration, settings_of
from .findings import Check, Finding, Level
from .production import check_production
from .rows import Fault, RowCheck, check_rows, checked_channels
from .services import check_database, check_environments, check_redis, refuse_missing_tables

__all__ = [
    "Check",
    "Fault",
    "Finding",
    "Level",
    "RowCheck",
    "check_catalog",
    "check_certificates",
    "check_configuration",
    "check_database",
    "check_environments",
    "check_lock",
    "check_production",
    "check_redis",
    "check_rows",
    "check_urls",
    "checked_channels",
    "lock_path",
    "refuse_missing_tables",
    "settings_of",
]
