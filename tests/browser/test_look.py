"""Every page in light and dark: axe finds no fault, nothing overflows at 360 pixels or 4K, the keyboard suffices."""

from __future__ import annotations

import json
import typing as t

import pytest
import sqlalchemy as sa
from playwright.sync_api import Browser, Locator, Page, expect
from sqlalchemy.orm import Session

from flask_webhooks.models import Message, Subscription
from flask_webhooks.state import state_of
from tests.browser import history
from tests.browser.conftest import Customer, Looks, Site, check_accessibility, looks
from tests.browser.principals import NEWCOMER, OPERATOR
from tests.console.conftest import Log, write_log
from tests.stage import wait_until

pytestmark = pytest.mark.long

BOB = "bob@globex.example"
MOST_TABS = 60
SCRIPT = "<script>alert(1);ran=1</script>\"'><img src=x onerror=alert(2);ran=1>"


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


# ---- every page, light and dark, at 360 pixels, on a desk and on a wall ----------------------------------


def first_delivery(page: Page) -> None:
    page.locator(".wh-event-name").first.click()
    page.locator("#wh-story").wait_for()


def refuse(page: Page) -> None:
    page.get_by_label("URL", exact=True).fill("ftp://example.com")
    page.get_by_label("Retries").select_option("own")
    page.get_by_role("button", name="Create webhook").click()
    page.get_by_role("alert").wait_for()


def pick_ledgers(page: Page) -> None:
    page.get_by_role("searchbox", name="Search channels and events").fill("ledgers")
    page.locator("input[value='ledgers.created']").check()
    page.get_by_role("searchbox", name="Search channels and events").fill("invoices")


def reveal(page: Page) -> None:
    page.get_by_role("button", name="Yes, show it").click()
    page.locator("#wh-secret-1").wait_for()


def count(page: Page) -> None:
    page.get_by_label("Everything").check()
    page.get_by_role("button", name="Count first").click()
    page.locator("#wh-count .wh-callout").wait_for()


def go_elsewhere(page: Page) -> None:
    hint = page.locator("#wh-tagged")
    color = "getComputedStyle(document.querySelector('#wh-tagged')).color"
    before = page.evaluate(color)
    page.get_by_label("Environment").select_option("production")
    expect(hint).to_contain_text("are for staging")
    assert page.evaluate(color) != before, "what gets no events of this app looks like any other"


class Sight(t.NamedTuple):
    """A page, and what is done before it is looked at."""

    path: str
    headers: t.Mapping[str, str] = {}
    act: t.Callable[[Page], None] = lambda page: None


SIGHTS = {
    "webhooks": Sight("/"),
    "no webhooks yet": Sight("/", NEWCOMER),
    "nothing fits": Sight("/?q=nothing-like-it"),
    "new": Sight("/webhooks/new"),
    "new, refused": Sight("/webhooks/new?event=invoices.created", act=refuse),
    "new, elsewhere": Sight("/webhooks/new", act=go_elsewhere),
    "new, exclusive": Sight("/webhooks/new", act=pick_ledgers),
    "edit": Sight("/webhooks/{main}/edit"),
    "webhook": Sight("/webhooks/{main}", act=reveal),
    "first steps": Sight("/webhooks/{main}/set-up"),
    "webhook, held": Sight("/webhooks/{held}"),
    "webhook, failing": Sight("/webhooks/{failing}"),
    "deliveries": Sight("/deliveries"),
    "delivery, pending": Sight("/deliveries?state=pending", act=first_delivery),
    "delivery, delivered": Sight("/deliveries?state=delivered", act=first_delivery),
    "delivery, held": Sight("/deliveries?state=held", act=first_delivery),
    "replay": Sight("/webhooks/{main}/replay", act=count),
    "events": Sight("/events"),
    "event": Sight("/events/invoices.updated"),
    "missing": Sight("/nothing/here"),
    "operator": Sight("/operator", OPERATOR),
    "operator, webhooks": Sight("/", OPERATOR),
}
DESK, PHONE, WALL = (1280, 860), (360, 740), (3840, 2160)


@pytest.fixture(scope="module")
def viewer(browser: Browser, signed_in: t.Callable[[str], t.Any]) -> t.Iterator[Page]:
    """One page that all of these are seen on."""
    with looks(browser, signed_in) as open_page:
        yield open_page(BOB)


def fits(page: Page) -> bool:
    """Whether nothing overflows the window horizontally."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


def look(page: Page, size: tuple[int, int], scheme: t.Any) -> None:
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.emulate_media(color_scheme=scheme, reduced_motion="reduce")


@pytest.mark.parametrize("sight", SIGHTS.values(), ids=list(SIGHTS))
def test_every_page_is_accessible_and_fits(
    viewer: Page, site: Site, ids: dict[str, str], sight: Sight
) -> None:
    look(viewer, DESK, "light")
    viewer.set_extra_http_headers(dict(sight.headers))
    viewer.goto(site.console + sight.path.format(**ids))
    if viewer.locator("[data-numbers]").count():
        viewer.locator("[data-drawn]").wait_for()
    for fold in viewer.locator("details.wh-fold > summary").all():
        fold.click()
    sight.act(viewer)

    check_accessibility(viewer)
    look(viewer, DESK, "dark")
    check_accessibility(viewer, ["color-contrast"])
    look(viewer, PHONE, "dark")
    check_accessibility(viewer)
    for size in (WALL, DESK, PHONE):
        look(viewer, size, "light")
        wait_until(lambda: fits(viewer), 20, about=f"a page that fits {size}")  # charts follow a moment later


# ---- what comes from outside -----------------------------------------------------------------------------


@pytest.fixture
def hostile(site: Site) -> Log:
    """A webhook and a log with a script in every text that comes from outside."""
    state = state_of(site.app)
    texts: dict[str, t.Any] = dict.fromkeys(("detail", "worker"), SCRIPT)
    headers = dict.fromkeys(("request_headers", "response_headers"), json.dumps({SCRIPT: SCRIPT}))
    url = "https://example.com/?" + SCRIPT
    log = write_log(state, url, owner="hostile", response_body=SCRIPT.encode(), **texts, **headers)
    with Session(state.engine) as session:
        session.get_one(Subscription, log.subscription.id).description = SCRIPT
        for message in session.scalars(sa.select(Message).where(Message.owner == "hostile")):
            message.text = message.entity_id = SCRIPT
            message.data = json.dumps({SCRIPT: SCRIPT, "name": "\u0645\u0631\u062d\u0628\u0627\u202e"})
            message.extras = json.dumps({"changes": {SCRIPT: {"from": SCRIPT, "to": [SCRIPT]}}})
        session.commit()
    return log


def test_no_script_from_outside_runs(open_page: Looks, site: Site, hostile: Log) -> None:
    """In no place that a browser builds, the parts that scripts of ours fill in among them; a dialog would tell."""
    page = open_page(extra_http_headers={"X-Guise": "hostile"})
    webhook = f"/webhooks/{hostile.subscription.id}"
    sights = [
        "/",
        f"/?q={SCRIPT}",
        webhook,
        f"{webhook}/edit",
        f"{webhook}/replay",
        "/deliveries",
        "/events/invoices.updated",
    ]
    for place in [*sights, f"/deliveries/{hostile.deliveries['failed']}"]:
        page.goto(site.console + place)
        page.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")

        assert page.evaluate("document.querySelectorAll('img[src=x], script:not([src])').length") == 0, place
    page.goto(f"{site.console}/webhooks/new")
    for field in (page.get_by_label("URL", exact=True), page.get_by_label("Description")):
        field.fill(SCRIPT)
    expect(page.locator("#wh-url-check")).to_contain_text("The URL must not contain")
    page.get_by_role("button", name="Create webhook").click()
    page.get_by_role("alert").wait_for()
    expect(page.get_by_label("Description")).to_have_value(SCRIPT)
    assert page.evaluate("window.ran") is None


# ---- keys alone ------------------------------------------------------------------------------------------


def tab_to(page: Page, place: Locator) -> None:
    """Go on with the tab key until a place has the focus, and can be seen to have it."""
    expect(place).to_be_visible()
    for _ in range(MOST_TABS):
        page.keyboard.press("Tab")
        if place.evaluate("element => element === document.activeElement"):
            break
    expect(place).to_be_focused()
    assert place.evaluate("element => getComputedStyle(element).outlineStyle") != "none"


def test_keys_are_enough(open_page: Looks, site: Site, customer: Customer) -> None:
    """A webhook is made, tried, looked at and switched off without a pointer."""
    page = open_page(extra_http_headers={"X-Guise": "keys"})
    page.goto(f"{site.console}/")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to content")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.locator("#wh-main")).to_be_focused()
    tab_to(page, page.get_by_role("link", name="Add your first webhook"))
    page.keyboard.press("Enter")

    tab_to(page, page.get_by_label("URL", exact=True))
    page.keyboard.type(customer.url("/keys"))
    tab_to(page, page.get_by_label("Description"))
    tab_to(page, page.get_by_role("searchbox", name="Search channels and events"))
    page.keyboard.type("clients")
    clients = page.locator(".wh-channel[data-name=clients]")
    tab_to(page, clients.locator("summary"))
    if clients.get_attribute("open") is None:
        page.keyboard.press("Enter")
    tab_to(page, clients.get_by_role("checkbox", name="Client created"))
    page.keyboard.press("Space")
    tab_to(page, page.get_by_role("button", name="Create webhook"))
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Your webhook is set up")).to_be_visible()

    tab_to(page, page.get_by_role("button", name="Send a test"))
    page.keyboard.press("Enter")
    expect(page.locator("#wh-trial")).to_contain_text("Your receiver answered.")
    tab_to(page, page.get_by_role("link", name="To the webhook"))
    page.keyboard.press("Enter")

    tab_to(page, page.get_by_role("radio", name="Python"))
    page.keyboard.press("ArrowRight")
    expect(page.locator("#wh-snippet-node")).to_be_visible()
    tab_to(page, page.get_by_text("Show the secret"))
    page.keyboard.press("Enter")
    tab_to(page, page.get_by_role("button", name="Yes, show it"))
    page.keyboard.press("Enter")
    expect(page.locator("#wh-secret-1")).to_contain_text("whsec_")

    page.goto(f"{site.console}/")
    switch = page.get_by_role("switch", name=f"Send to {customer.url('/keys')}")
    tab_to(page, switch)
    page.keyboard.press("Space")
    expect(switch).to_have_attribute("aria-checked", "false")
    expect(switch).to_be_focused()


# ---- what moves ------------------------------------------------------------------------------------------


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
    expect(page.locator("[data-plot=bars] canvas").first).to_be_visible()


def test_older_deliveries_come_by_scrolling(open_page: Looks, site: Site, ids: dict[str, str]) -> None:
    page = open_page(BOB)
    page.goto(f"{site.console}/deliveries")
    rows = page.locator(".wh-log tr[id^=d-]")
    first = rows.count()

    page.locator("#wh-more").scroll_into_view_if_needed()

    expect(rows.nth(first + 5)).to_be_attached()
