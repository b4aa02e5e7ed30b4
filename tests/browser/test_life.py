"""The life of a webhook in a real browser: create, receive, fail, read the reason, rotate, fix, replay."""

from __future__ import annotations

import json
import re
import typing as t

import pytest
from playwright.sync_api import Page, expect
from standardwebhooks import Webhook

from tests.browser.conftest import (
    Customer,
    Looks,
    Site,
    check_accessibility,
    issue_invoice,
    sign_in,
    subscribed,
)
from tests.stage import wait_until

pytestmark = pytest.mark.long

LOOKS: list[t.Any] = [
    pytest.param({"color_scheme": "light"}, id="light"),
    pytest.param({"color_scheme": "dark", "viewport": {"width": 360, "height": 740}}, id="dark at 360 px"),
]


def choose_invoices(page: Page) -> None:
    """Pick two events of invoices, with includes."""
    page.get_by_role("searchbox", name="Search channels and events").fill("invoices")
    channel = page.locator(".wh-channel[data-name=invoices]")
    if channel.get_attribute("open") is None:
        channel.locator("summary").click()
    channel.get_by_role("checkbox", name="Invoice created").check()
    channel.get_by_role("checkbox", name="Invoice updated").check()
    includes = channel.get_by_role("group", name="Include with invoices.created")
    includes.get_by_label("line_items").check()


def try_ledgers(page: Page) -> None:
    """Ledgers cannot be picked together with invoices; alone they disable the other channels."""
    search = page.get_by_role("searchbox", name="Search channels and events")
    search.fill("ledgers")
    ledgers = page.locator(".wh-channel[data-name=ledgers]")
    if ledgers.get_attribute("open") is None:
        ledgers.locator("summary").click()
    box = ledgers.locator("input[value='ledgers.created']")
    expect(box).to_be_disabled()
    expect(ledgers).to_contain_text("cannot be combined with Invoices")
    page.get_by_role("button", name="Clear").click()
    box.check()
    expect(page.locator("[data-picker-note]")).to_contain_text("Ledgers is exclusive")
    search.fill("invoices")
    expect(
        page.locator(".wh-channel[data-name=invoices]").get_by_role("checkbox", name="Invoice created")
    ).to_be_disabled()
    page.get_by_role("button", name="Choose others instead").click()
    expect(box).not_to_be_checked()


@pytest.mark.parametrize("look", LOOKS)
def test_a_customers_whole_life(
    open_page: Looks, site: Site, customer: Customer, look: dict[str, t.Any]
) -> None:
    page = open_page(None, **look)
    sign_in(page, site, "ada@acme.example")

    # Set up a webhook for invoices, after Ledgers were refused.
    page.get_by_role("link", name="Webhooks").click()
    page.get_by_role("link", name=re.compile("New webhook|Add your first webhook")).first.click()
    page.get_by_label("URL", exact=True).fill("https://169.254.169.254/")
    page.get_by_label("Description").click()
    expect(page.locator("#wh-url-check")).to_contain_text("reachable from the public internet")
    page.get_by_label("URL", exact=True).fill(customer.url("/invoices"))
    page.get_by_role("button", name="Try it").click()
    expect(page.locator("#wh-url-check")).to_contain_text("Reached in")
    page.get_by_text("What was sent, as Flask-Webhooks/").click()
    expect(page.locator("#wh-sent")).to_contain_text("webhook-signature: v1,")
    customer.requests.clear()
    page.get_by_label("Description").fill("Life")
    choose_invoices(page)
    try_ledgers(page)
    choose_invoices(page)
    expect(page.locator("#wh-preview")).to_contain_text("line_items")
    page.get_by_role("button", name="Create webhook").click()
    expect(page.get_by_role("heading", name="Your webhook is set up")).to_be_visible()
    first_secret = page.locator("#wh-secret-text").inner_text()
    done = page.locator(".wh-step.is-done")
    expect(done).to_have_count(0)
    page.get_by_role("button", name="Copy secret").click()
    expect(done).to_have_text([re.compile("Keep this secret")])
    page.locator("label", has_text="Node.js").click()
    page.locator("#wh-snippet-node").locator("xpath=ancestor::div[1]").get_by_role(
        "button", name="Copy"
    ).click()
    expect(done).to_have_count(2)
    page.get_by_role("button", name="Send a test").click()
    expect(page.locator("#wh-trial")).to_contain_text("Your receiver answered.")
    expect(done).to_have_count(3)
    check_accessibility(page)
    page.reload()  # sends nothing again, shows no secret again, knows the language and what has arrived
    expect(page.locator(".wh-secret").first).to_contain_text("whsec_•")
    assert first_secret not in page.content()
    expect(page.locator("#wh-snippet-node")).to_be_visible()
    expect(done).to_have_text([re.compile("Keep this secret"), re.compile("Send a test")])
    key = subscribed(page)
    webhook = f"{site.console}/webhooks/{key}"

    # Issue an invoice, and watch it arrive without touching the page.
    log = open_page(**look)  # a window of its own: a tab behind another is slowed down by the browser
    log.goto(f"{site.console}/deliveries?webhook={key}")
    issue_invoice(page, site, "مرحبا <script>alert(1)</script>")
    arrived = log.locator("#wh-live tr", has_text="invoices.created")
    expect(arrived).to_contain_text("Delivered")
    expect(arrived).to_contain_text("204")
    expect(log.locator("#wh-heard")).to_have_text("New deliveries: 1")
    received = wait_until(
        lambda: [each for each in customer.requests if b"invoices.created" in each.body], 30
    )[0]
    data = Webhook(first_secret).verify(received.body, received.headers)
    assert data["data"]["line_items"][0]["description"] == "مرحبا <script>alert(1)</script>"

    # The receiver fails: read why.
    customer.status, customer.body = 500, b"<script>alert('body')</script>"
    issue_invoice(page, site)
    failed = log.locator("#wh-live tr", has_text="Retrying")
    expect(failed).to_contain_text("500")
    failed.get_by_role("link").click()
    expect(log.locator("#wh-story")).to_contain_text("look in its log for this webhook-id")
    expect(log.locator("#wh-story")).to_contain_text("<script>alert('body')</script>")

    # Rotate the secret, mend the receiver, send again.
    page.goto(webhook)
    page.get_by_text("Rotate the secret").click()
    page.get_by_role("button", name="Rotate", exact=True).click()
    expect(page.locator("#wh-secret")).to_contain_text("From now on requests are signed with the new secret.")
    second_secret = page.locator("#wh-secret-1").inner_text()
    assert second_secret != first_secret
    customer.status = 204
    log.get_by_role("button", name="Retry now").click()
    expect(log.locator(".wh-meta").first).to_contain_text("Delivered")
    expect(log.locator(".wh-timeline")).to_contain_text("Delivered")
    retried = customer.requests[-1]
    for secret in (first_secret, second_secret):
        Webhook(secret).verify(retried.body, retried.headers)

    # Replay everything, and see the chart move.
    count = len(customer.requests)
    page.goto(webhook)
    page.locator("[data-drawn]").wait_for()
    before = succeeded(page, webhook)
    page.get_by_role("link", name="Replay", exact=True).click()
    page.get_by_label("Everything").check()
    page.get_by_role("button", name="Count first").click()
    expect(page.locator("#wh-count")).to_contain_text("2 deliveries would be sent again.")
    page.get_by_role("button", name="Replay 2 deliveries").click()
    expect(page.locator("#wh-replay")).to_contain_text("Done")
    wait_until(lambda: len(customer.requests) >= count + 2, 30)
    wait_until(lambda: succeeded(page, webhook) == before + 2, 30)
    assert json.loads(customer.requests[-1].body)["event"] == "invoices.created"


def succeeded(page: Page, webhook: str) -> int:
    """Return what the chart shows as succeeded."""
    numbers = page.evaluate(
        "async (address) => await (await fetch(address)).json()", f"{webhook}/charts?as=json"
    )
    return sum(numbers["ok"])


def test_the_live_tail_is_paused_and_deliveries_are_held(
    open_page: Looks, site: Site, customer: Customer
) -> None:
    page = make_webhook(open_page(), site, customer)
    key = subscribed(page)
    log = open_page()
    log.goto(f"{site.console}/deliveries?webhook={key}")
    log.get_by_role("button", name="Live").click()
    expect(log.get_by_role("button", name="Paused")).to_have_attribute("aria-pressed", "false")

    issue_invoice(page, site)
    wait_until(lambda: customer.requests, 30)
    expect(log.locator("#wh-live")).not_to_contain_text("invoices.created")
    log.get_by_role("button", name="Paused").click()

    expect(log.locator("#wh-live")).to_contain_text("invoices.created")

    page.goto(f"{site.console}/")
    page.get_by_role("switch", name=customer.url()).click()
    expect(page.get_by_role("switch", name=customer.url())).to_have_attribute("aria-checked", "false")
    issue_invoice(page, site)
    page.goto(f"{site.console}/webhooks/{key}")
    expect(page.locator("#held")).to_contain_text("1 delivery is held")
    assert len(customer.requests) == 1
    page.get_by_role("button", name="Switch on and send").click()

    wait_until(lambda: len(customer.requests) == 2, 30)


def make_webhook(page: Page, site: Site, customer: Customer, path: str = "/hook") -> Page:
    """Make a webhook for created invoices by its form alone; works without JavaScript."""
    page.goto(f"{site.console}/webhooks/new?event=invoices.created")
    page.get_by_label("URL", exact=True).fill(customer.url(path))
    page.get_by_role("button", name="Create webhook").click()
    expect(page.get_by_role("heading", name="Your webhook is set up")).to_be_visible()
    return page


# ---- without JavaScript ----------------------------------------------------------------------------------


def test_every_form_works_without_javascript(open_page: Looks, site: Site, customer: Customer) -> None:
    page = open_page(java_script_enabled=False)
    make_webhook(page, site, customer)
    key = subscribed(page)
    webhook = f"{site.console}/webhooks/{key}"

    page.get_by_role("button", name="Send a test").click()
    expect(page.get_by_role("heading", name="webhooks.test")).to_be_visible()
    expect(page.locator("#wh-story")).to_contain_text("204")

    page.goto(f"{webhook}/edit")
    page.get_by_label("Description").fill("Without a script")
    page.locator(".wh-channel[data-name=ledgers] summary").click()
    page.get_by_role("checkbox", name="Ledger created").check()
    page.get_by_role("button", name="Save changes").click()
    expect(page.locator("#wh-error-events")).to_contain_text("is exclusive")
    page.get_by_role("checkbox", name="Ledger created").uncheck()
    page.get_by_role("button", name="Save changes").click()
    expect(page.locator(".wh-notice")).to_contain_text("Saved.")
    expect(page.locator("h1 ~ .wh-meta")).to_contain_text("Without a script")

    page.get_by_text("Show the secret").click()
    page.get_by_role("button", name="Yes, show it").click()
    expect(page.locator("#wh-secret-1")).to_contain_text("whsec_")

    issue_invoice(page, site)
    written = f"{site.console}/deliveries?webhook={key}&state=delivered&event=invoices.created"
    wait_until(lambda: 'id="d-' in page.request.get(written).text(), 30)  # received comes before written
    page.goto(written)
    page.get_by_role("link", name="invoices.created").click()
    page.get_by_role("button", name="Send again").click()
    expect(page.locator(".wh-notice")).to_contain_text("due now")

    page.goto(f"{webhook}/replay")
    page.get_by_label("Everything").check()
    page.get_by_role("button", name="Count first").click()
    page.get_by_role("button", name="Replay 1 delivery").click()
    expect(page.locator(".wh-notice")).to_contain_text("The replay has started.")

    page.goto(webhook)
    page.get_by_role("button", name="Switch off").click()
    expect(page.locator(".wh-notice")).to_contain_text("Switched off")
    page.get_by_text("Remove this webhook").click()
    page.get_by_role("button", name="Remove permanently").click()
    expect(page.locator(".wh-notice")).to_contain_text("removed")


# ---- the log ---------------------------------------------------------------------------------------------


def test_filters_of_the_log_work_at_once_and_stay_live(
    open_page: Looks, site: Site, customer: Customer
) -> None:
    page = open_page()
    make_webhook(page, site, customer, "/filters")
    key = subscribed(page)
    page.get_by_role("button", name="Send a test").click()
    expect(page.locator("#wh-trial")).to_contain_text("Your receiver answered.")

    page.goto(f"{site.console}/deliveries?webhook={key}")
    expect(page.get_by_role("button", name="Filter")).to_be_hidden()
    tested = page.locator("#wh-log tr", has_text="webhooks.test")
    expect(tested).to_be_visible()
    page.get_by_label("State").select_option("failed")
    expect(page.locator("#wh-log")).to_contain_text("Nothing matches")
    expect(page).to_have_url(re.compile("state=failed"))
    page.get_by_label("State").select_option("delivered")
    expect(tested).to_be_visible()
    issue_invoice(open_page(), site)
    expect(page.locator("#wh-live tr", has_text="invoices.created")).to_be_visible()  # the tail goes on
    page.get_by_placeholder("Part of a webhook-id").type("ffffffff")
    expect(page.locator("#wh-log")).to_contain_text("Nothing matches")
    page.get_by_role("link", name="Clear").click()
    expect(page.locator("#wh-log tr", has_text="webhooks.test").first).to_be_visible()
