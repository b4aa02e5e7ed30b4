"""No fault of Redis fails a request of the API: its answer may show a secret that is never shown again."""

from __future__ import annotations

import typing as t
from dataclasses import replace

import pytest
from flask import Flask

from flask_webhooks.queue import Bell
from flask_webhooks.state import EXTENSION, state_of
from tests.api.conftest import Customer


@pytest.mark.parametrize(
    "url", ["redis://:a#b@h/0", "redis://127.0.0.1:1/0?S3cret=1", "rediss://h/0?ssl_cert_reqs=nonsense"]
)
def test_a_subscription_is_answered_with_its_secret_whatever_the_redis_url_is(
    make_app: t.Callable[..., Flask], url: str
) -> None:
    """`init_app` refuses such a URL; a fault that shows only when the bell is rung must end there too."""
    app = make_app()
    state = state_of(app)
    bell = Bell(url, state.embedded, "webhooks", "tests.served")
    app.extensions[EXTENSION] = replace(state, bell=bell)

    found = Customer(app.test_client()).subscribe()

    assert found["secret"].startswith("whsec_")
