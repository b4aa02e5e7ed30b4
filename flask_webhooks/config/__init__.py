"""The configuration of one app: every `WEBHOOKS_*` key, read and checked once.

===========  ===============================================
`settings`   the keys, with their defaults and their units
`values`     what each kind of value may be
===========  ===============================================
"""

from __future__ import annotations

from .settings import PREFIX, Settings, slips
from .values import ENVIRONMENTS, ConsoleTheme, Environment, LoginView

__all__ = ["ENVIRONMENTS", "PREFIX", "ConsoleTheme", "Environment", "LoginView", "Settings", "slips"]
