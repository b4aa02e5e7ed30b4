"""Which site made a browser send a request, by the browser's own headers."""

from __future__ import annotations

import pytest
from flask import Request
from werkzeug.test import EnvironBuilder

from flask_webhooks.web import Initiator, initiator_of

CASES = [
    ({"Sec-Fetch-Site": "same-origin", "Origin": "https://evil.example"}, Initiator.SAME_ORIGIN),
    ({"Sec-Fetch-Site": "none"}, Initiator.USER),
    ({"Sec-Fetch-Site": "same-site"}, Initiator.OTHER_ORIGIN),
    ({"Sec-Fetch-Site": "of-tomorrow"}, Initiator.OTHER_ORIGIN),
    ({"Origin": "https://app.example"}, Initiator.SAME_ORIGIN),
    ({"Origin": "http://app.example"}, Initiator.OTHER_ORIGIN),
    ({"Origin": "https://app.example:8443"}, Initiator.OTHER_ORIGIN),
    ({"Origin": "null"}, Initiator.OTHER_ORIGIN),
    ({"Origin": "http://["}, Initiator.OTHER_ORIGIN),
    ({"Cookie": "session=x"}, Initiator.UNKNOWN),
]


@pytest.mark.parametrize(("headers", "initiator"), CASES)
def test_what_a_browser_says_of_where_a_request_comes_from(
    headers: dict[str, str], initiator: Initiator
) -> None:
    environ = EnvironBuilder(base_url="https://app.example/", headers=headers).get_environ()

    assert initiator_of(Request(environ)) is initiator
