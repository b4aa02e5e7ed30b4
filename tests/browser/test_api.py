"""The documentation page of the API in a browser that enforces `default-src 'self'`."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from tests.browser.conftest import Looks, Site, check_accessibility

pytestmark = pytest.mark.long


def test_the_description_works_under_a_strict_policy(open_page: Looks, site: Site) -> None:
    page = open_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))

    answer = page.goto(f"{site.address}/webhooks/api/docs")

    assert answer is not None
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert asked == [f"{site.address}/webhooks/api/docs", f"{site.address}/webhooks/api/docs.css"]
    assert page.evaluate("getComputedStyle(document.querySelector('.method')).fontWeight") == "700"
    summary = page.locator("#create_subscription > summary")
    summary.click()
    expect(page.locator("#create_subscription")).to_contain_text('"url": "https://example.com/hooks"')
    check_accessibility(page)
