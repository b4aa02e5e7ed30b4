"""Every page, light and dark, into `docs/img/`: `python -m tests.browser.screenshots`."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import threading
import typing as t
from datetime import UTC, datetime
from pathlib import Path

import sqlalchemy as sa
from flask import Flask
from playwright.sync_api import Browser, Page, sync_playwright
from werkzeug.serving import make_server

from example_app import create_app
from example_app.models import User, db
from example_app.seed import PASSWORD, seed
from example_app.webhooks import load_principal
from flask_webhooks import Principal
from flask_webhooks.models import Worker
from flask_webhooks.state import state_of
from tests.browser import history
from tests.browser.chromium import ARGUMENTS, find_chromium

TARGET = Path(__file__).resolve().parents[2] / "docs" / "img"
LARGEST = 150 * 1024
"""Bytes of one picture."""
VIEW = {"width": 1280, "height": 860}


@contextlib.contextmanager
def serve(folder: Path) -> t.Iterator[tuple[str, dict[str, str]]]:
    """Run the example app with a month behind it; yield its address and the webhooks by description."""
    app = create_app(
        {
            "SECRET_KEY": "screenshots",
            "SQLALCHEMY_DATABASE_URI": f"sqlite:///{folder / 'shots.sqlite'}",
            "WEBHOOKS_ENVIRONMENT": "production",  # as the history is
            "WEBHOOKS_CONSOLE": {"name": "Acme Books", "home": "/"},
        }
    )
    app.instance_path = str(folder)
    with app.app_context():
        seed(db)
        ids = history.write(state_of(app))
    _let_operate(app)
    state_of(app).embedded.start()
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    _beat_at_once(app)
    yield f"http://127.0.0.1:{server.server_port}", ids
    server.shutdown()
    thread.join()
    state_of(app).embedded.stop_if_last()


def _let_operate(app: Flask) -> None:
    """Bob is an operator here, so that the operator's page can be shown."""

    def load() -> Principal | None:
        found = load_principal()
        from example_app.auth import current_user

        user: User | None = current_user()
        if found is not None and user is not None and user.email.startswith("bob"):
            return Principal(found.owner, found.rights, operator=True)
        return found

    object.__setattr__(state_of(app), "load_principal", load)


def _beat_at_once(app: Flask) -> None:
    """The workers of this history are alive at every request, however long the pictures take."""

    def beat() -> None:
        with state_of(app).engine.begin() as connection:
            connection.execute(sa.update(Worker).values(seen_at=datetime.now(UTC)))

    app.before_request(beat)


def sign_in(page: Page, address: str, email: str = "ada@acme.example") -> None:
    """Sign in to the example app."""
    page.goto(f"{address}/sign-in")
    page.get_by_label("Email").fill(email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button").click()
    page.wait_for_url(f"{address}/")


def shots(page: Page, console: str, ids: t.Mapping[str, str], names: t.Collection[str]) -> t.Iterator[str]:
    """Go from page to page; yield each one's name when it is ready."""
    main, failing = ids["Invoices into the ERP"], ids["Stock levels for the warehouse"]
    places: dict[str, str] = {
        "webhooks": "/",
        "form": f"/webhooks/{main}/edit",
        "webhook": f"/webhooks/{main}",
        "held": "/webhooks/" + ids["Ada's laptop"],
        "deliveries": "/deliveries",
        "delivery": f"/deliveries?webhook={failing}&state=pending",
        "replay": f"/webhooks/{main}/replay",
        "events": "/events",
        "event": "/events/invoices.updated",
    }
    for name, place in places.items():
        if names and name not in names:
            continue
        page.goto(console + place)
        if name == "webhook":
            page.wait_for_selector("[data-drawn]")
        if name == "form":
            page.get_by_label("Search channels and events").fill("invo")
        if name == "delivery":
            page.locator(".wh-event-name").first.click()
            page.wait_for_selector("#wh-story")
        if name == "replay":
            page.get_by_label("Everything").check()
            page.get_by_role("button", name="Count first").click()
            page.wait_for_selector("#wh-count .wh-callout")
        page.evaluate("document.fonts.ready")
        yield name


def take(
    browser: Browser, address: str, ids: t.Mapping[str, str], scheme: str, names: t.Collection[str]
) -> None:
    """Take every page in one look, and some at 360 pixels."""
    for width in (1280, 360):
        context = browser.new_context(
            viewport={**VIEW, "width": width} if width > 400 else {"width": 360, "height": 740},  # type: ignore[arg-type]
            color_scheme=scheme, locale="en-GB", timezone_id="Europe/Berlin", reduced_motion="reduce",
        )  # fmt: skip
        page = context.new_page()
        sign_in(page, address)
        for name in shots(page, f"{address}/webhooks/console", ids, names):
            save(page, f"{name}-{scheme}" + ("-360" if width < 400 else ""))
        if width > 400 and (not names or "operator" in names):
            page.goto(address)
            page.get_by_role("button", name="Sign out").click()
            sign_in(page, address, "bob@globex.example")
            page.goto(f"{address}/webhooks/console/operator")
            save(page, f"operator-{scheme}")
        context.close()


def save(page: Page, name: str) -> None:
    """Write what is on the screen; with fewer colours where it would be too large."""
    folder = Path(os.environ.get("SCREENSHOTS", TARGET))
    if "-360" in name and folder == TARGET and not name.startswith(("webhooks", "webhook-", "deliver")):
        return
    file = folder / f"console-{name}.png"
    page.screenshot(path=file, full_page="SCREENSHOTS" in os.environ)
    from PIL import Image

    with Image.open(file) as image:
        whole = image.convert("RGB")
    whole.save(file, optimize=True)
    if file.stat().st_size > LARGEST:
        whole.quantize(256, kmeans=2).save(file, optimize=True)
    sys.stdout.write(f"{file.name} {file.stat().st_size // 1024} KiB\n")


def main() -> None:
    """Entry point of `make screenshots`; arguments are the names of pages, none is all."""
    with (
        tempfile.TemporaryDirectory() as folder,
        serve(Path(folder)) as (address, ids),
        sync_playwright() as play,
    ):
        browser = play.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
        for scheme in ("light", "dark"):
            take(browser, address, ids, scheme, sys.argv[1:])
        browser.close()


if __name__ == "__main__":
    main()
