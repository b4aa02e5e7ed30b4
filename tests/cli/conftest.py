"""Fixtures that call the command line."""

from __future__ import annotations

import typing as t

import pytest
from click.testing import Result
from flask import Flask

from flask_webhooks.cli import webhooks_cli

Command = t.Callable[..., Result]


@pytest.fixture
def flask_webhooks(app: Flask) -> Command:
    """`flask webhooks …`; fails the test if the exit code is another than `expect`."""

    def call(*words: str, expect: int = 0) -> Result:
        result = app.test_cli_runner().invoke(webhooks_cli, [str(word) for word in words])
        assert result.exit_code == expect, (result.output, result.exception)
        return result

    return call
