"""Every page in every look: axe finds nothing, nothing sticks out at 360 pixels or is lost at 4K, keys are enough."""

from __future__ import annotations

import typing as t

import pytest
from playwright.sync_api import Page, expect

from flask_webhooks.state import state_of
from tests.browser import history
from tests.browser.conftest import Looks, Site, check_accessibility

BOB = "bob@globex.example"
PLACES = {
    "webhooks": "/",
    "new": "/webhooks/new",
    "edit": "/webhooks/{main}/edit",
    "webhook": "/webhooks/{main}",
    "held": "/webhooks/{held}",
    "failing": "/webhooks/{failing}",
    "deliveries": "/deliveries",
    "replay": "/webhooks/{main}/replay",
    "events": "/events",
    "event": "/events/invoices.updated",
    "missing": "/nothing/here",
}


@pytest.fixture(scope="session")
def ids(site: Site) -> dict[str, str]:
    """The webhooks of a business with a month behind it."""
    with site.app.app_context():
        made = history.write(state_of(site.app), owner="2")
    return {
        "main": made["Invoices into the ERP"],
        "held": made["Ada's laptop"],
        "failing": made["Clients into the CRM"],
    }


def visit(page: Page, site: Site, ids: dict[str, str], place: str) -> None:
    """Open a page and wait until it is drawn."""
    page.goto(site.console + place.format(**ids))
    if page.locator("[data-numbers]").count():
        page.locator("[data-drawn]").wait_for()
    for fold in page.locator("details.wh-fold > summary").all():
        fold.click()


@pytest.mark.parametrize(("width", "scheme"), [(360, "dark"), (1280, "light"), (3840, "dark")])
def test_every_page_is_accessible_and_fits(
    open_page: Looks, site: Site, ids: dict[str, str], scheme: t.Any, width: int
) -> None:
    page = open_page(BOB, color_scheme=scheme, viewport={"width": width, "height": max(740, width // 2)})

    for name, place in PLACES.items():
        visit(page, site, ids, place)

        if width < 3840:
            check_accessibility(page)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name


def test_a_delivery_is_accessible(open_page: Looks, site: Site, ids: dict[str, str]) -> None:
    page = open_page(BOB)
    for state in ("pending", "delivered", "held"):
        page.goto(f"{site.console}/deliveries?state={state}")
        page.locator(".wh-event-name").first.click()
        page.locator("#wh-story").wait_for()

        check_accessibility(page)


def test_keys_are_enough(open_page: Looks, site: Site, ids: dict[str, str]) -> None:
    page = open_page(BOB)
    page.goto(f"{site.console}/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#wh-main")).to_be_focused()

    page.get_by_role("searchbox").focus()
    page.keyboard.type("dev-tunnel")
    expect(page.locator("#wh-list tbody tr")).to_have_count(1)
    for _ in range(4):
        page.keyboard.press("Tab")
    expect(page.get_by_role("switch")).to_be_focused()
    outline = page.get_by_role("switch").evaluate("element => getComputedStyle(element).outlineStyle")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")

    page.wait_for_url(f"{site.console}/webhooks/{ids['held']}")
    assert outline == "solid"


def test_times_are_local_with_utc_on_hover(open_page: Looks, site: Site, ids: dict[str, str]) -> None:
    page = open_page(BOB, timezone_id="Asia/Tokyo")
    page.goto(f"{site.console}/webhooks/{ids['main']}")

    made = page.locator("time[data-local]").last

    utc = made.get_attribute("title") or ""
    hour = int(utc[11:13])
    assert utc.endswith("UTC")
    expect(made).to_contain_text(f"{(hour + 9) % 24:02}:{utc[14:16]}")


def test_what_lies_open_grows_older(open_page: Looks, site: Site, ids: dict[str, str]) -> None:
    page = open_page(BOB)
    page.clock.install()
    page.goto(f"{site.console}/deliveries?state=delivered")
    time = page.locator("#wh-live time").first
    page.get_by_role("button", name="Live").click()
    before = time.get_attribute("title")

    page.clock.fast_forward("03:00:00")

    expect(time).to_contain_text("3 h ago")
    assert time.get_attribute("title") == before


def test_charts_change_their_window(open_page: Looks, site: Site, ids: dict[str, str]) -> None:
    page = open_page(BOB)
    page.goto(f"{site.console}/webhooks/{ids['main']}")
    page.locator("[data-drawn]").wait_for()

    page.get_by_role("link", name="7 d", exact=True).click()

    expect(page.get_by_role("link", name="7 d", exact=True)).to_have_attribute("aria-current", "true")
    page.locator("[data-drawn]").wait_for()
    expect(page.locator("[data-plot=outcomes] canvas")).to_be_visible()


def test_older_deliveries_come_by_scrolling(open_page: Looks, site: Site, ids: dict[str, str]) -> None:
    page = open_page(BOB)
    page.goto(f"{site.console}/deliveries")
    rows = page.locator(".wh-log tr[id^=d-]")
    first = rows.count()

    page.locator("#wh-more").scroll_into_view_if_needed()

    expect(rows.nth(first + 5)).to_be_attached()
