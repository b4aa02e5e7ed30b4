"""The texts that the console's copy buttons put into the clipboard."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import sqlalchemy as sa

from flask_webhooks.models import Attempt, Delivery
from flask_webhooks.state import state_of
from tests.browser.conftest import Customer, Looks, Site
from tests.console.conftest import write_log
from tests.console.shells import ODD, SHELLS, pasted
from tests.stage import wait_until

pytestmark = pytest.mark.long


@pytest.mark.parametrize("times", [1, 2_000], ids=["short", "200 KiB"])
def test_a_request_is_copied_and_pasted_byte_for_byte(
    open_page: Looks, site: Site, customer: Customer, tmp_path: Path, times: int
) -> None:
    state = state_of(site.app)
    owner = f"copying-{times}"
    log = write_log(state, customer.url("/a/../b?f[a-c]=1"), owner=owner)
    body = json.dumps({"note": ODD * times}, ensure_ascii=False).encode()
    key = log.deliveries["failed"]
    digest = {"body_sha256": hashlib.sha256(body).hexdigest(), "body_size": len(body)}
    with state.engine.begin() as connection:
        connection.execute(sa.update(Delivery).where(Delivery.id == key).values(body=body))
        connection.execute(sa.update(Attempt).where(Attempt.delivery_id == key).values(**digest))

    page = open_page(extra_http_headers={"X-Guise": owner})
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(f"{site.console}/deliveries/{key}")
    page.evaluate("navigator.clipboard.writeText('')")  # what another test has left there
    page.get_by_text("Copy as cURL").click()
    copied = str(wait_until(lambda: page.evaluate("navigator.clipboard.readText()"), 20))

    assert f"/deliveries/{key}" in page.url
    for number, shell in enumerate(SHELLS, 1):
        folder = tmp_path / shell
        folder.mkdir()
        pasted(shell, copied, folder)
        # The site's worker sends what is pending in that log, too.
        arrived = [each.target for each in customer.requests if each.body == body]
        assert arrived == ["/a/../b?f[a-c]=1"] * number
