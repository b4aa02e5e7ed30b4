"""Every `WEBHOOKS_*` key by itself: `Settings.read` stops at the first that is wrong."""

from __future__ import annotations

import typing as t

from ..config import PREFIX, Settings, slips
from ..errors import ConfigurationError
from .findings import Check, Finding, Level

__all__ = ["check_configuration", "settings_of"]

Config = t.Mapping[str, t.Any]


def check_configuration(config: Config) -> Check:
    """Tell of every wrong value, and of keys that look like a slip."""
    keys = sorted(key for key in config if key.startswith(PREFIX))
    findings = [Finding(Level.ERROR, message) for key in keys if (message := _fault(config, key))]
    findings += [Finding(Level.WARNING, message) for message in slips(keys)]
    words = f"{len(keys)} key{'' if len(keys) == 1 else 's'} set" if keys else "nothing set, all by default"
    return Check("configuration", words, tuple(findings))


def settings_of(config: Config) -> Settings:
    """Return the settings with those keys that are right; the others have their defaults."""
    right = {
        key: value for key, value in config.items() if key.startswith(PREFIX) and not _fault(config, key)
    }
    return Settings.read(right)


def _fault(config: Config, key: str) -> str:
    try:
        Settings.read({key: config[key]})
    except ConfigurationError as error:
        return str(error)
    return ""
