"""Migrations in tests leave no logger silent."""

from __future__ import annotations

import logging
import typing as t

import pytest


@pytest.fixture(autouse=True)
def loggers() -> t.Iterator[None]:
    """Switch loggers on again: the env.py that Flask-Migrate writes silences all that exist."""
    yield
    for logger in logging.root.manager.loggerDict.values():
        if isinstance(logger, logging.Logger):
            logger.disabled = False
    logging.root.setLevel(logging.WARNING)
