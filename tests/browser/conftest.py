"""The example app as customers have it: a web server, a real worker, a receiver, and Debian's Chromium.

Without a Chromium on a developer's machine these tests are left out, with a word; on CI that is an error.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import subprocess
import sys
import threading
import typing as t
from pathlib import Path

import pytest
from flask import Flask
from werkzeug.serving import WSGIRequestHandler, make_server

from example_app import create_app
from example_app.models import db
from example_app.seed import PASSWORD, seed
from flask_webhooks.state import state_of
from tests.browser.chromium import ARGUMENTS, find_chromium
from tests.browser.principals import let_dress_up
from tests.receivers import Receiver, Talk, response
from tests.stage import wait_until

if t.TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Dialog, Page

HERE = Path(__file__).parent
HOME = HERE.parents[1]
AXE = HERE / "vendor" / "axe.min.js"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave these tests out where there is no browser; never on CI."""
    mine = [item for item in items if HERE in item.path.parents]
    if not mine or find_chromium() is not None:
        return
    if os.environ.get("CI"):
        raise pytest.UsageError("There is no Chromium, and this is CI. Run `make system` first.")
    items[:] = [item for item in items if item not in mine]
    config.hook.pytest_deselected(items=mine)
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        reporter.write_line(
            f"No Chromium: {len(mine)} browser tests are left out. `make system` installs it.", yellow=True
        )


class Customer(Receiver):
    """The customer's receiver: answers 204, or whatever `status` says."""

    def __init__(self) -> None:
        super().__init__(self._behave)
        self.status = 204
        self.body = b""

    def _behave(self, talk: Talk) -> None:
        while True:
            talk.read_request()
            headers = {"Content-Type": "text/html; charset=utf-8"}
            talk.send(response(self.status, headers, self.body if self.status != 204 else b""))


@pytest.fixture
def customer() -> t.Iterator[Customer]:
    with Customer() as receiver:
        yield receiver


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: t.Any) -> None:
        """Say nothing."""


class Site(t.NamedTuple):
    """The running example app."""

    address: str
    app: Flask

    @property
    def console(self) -> str:
        """Where the console is."""
        return f"{self.address}/webhooks/console"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Site]:
    """The example app behind a web server, with a worker process."""
    folder = tmp_path_factory.mktemp("site")
    settings = {
        "EXAMPLE_INSTANCE_PATH": str(folder),
        "EXAMPLE_WEBHOOKS_ALLOW_HTTP": "true",
        "EXAMPLE_WEBHOOKS_ALLOWED_NETWORKS": '["127.0.0.0/8"]',
        "EXAMPLE_WEBHOOKS_RETRY": "[600]",
        "EXAMPLE_WEBHOOKS_CONSOLE": '{"home": "/"}',
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        app = create_app()
        with app.app_context():
            seed(db)
        let_dress_up(app)
        with _worker(folder), _server(app) as address:
            yield Site(address, app)
        with app.app_context():
            db.session.remove()
            db.engine.dispose()
        state_of(app).transport.close()


@contextlib.contextmanager
def _server(app: Flask) -> t.Iterator[str]:
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join(10)


@contextlib.contextmanager
def _worker(folder: Path) -> t.Iterator[None]:
    words = [sys.executable, "-m", "flask", "--app", "example_app", "webhooks", "worker"]
    with open(folder / "worker.log", "w") as log:
        process = subprocess.Popen(words, cwd=HOME, stdout=log, stderr=log, start_new_session=True)
        yield
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="session")
def browser() -> t.Iterator[Browser]:
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=20_000)  # ends as soon as it is so; a loaded machine takes its time
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
        yield browser
        browser.close()


class Looks(t.Protocol):
    """Opens a blank page of a browser that is signed in."""

    def __call__(self, email: str | None = ..., **options: t.Any) -> Page:
        """Return the page. Without an email the visitor is not signed in; `options` are those of a browser context."""


@pytest.fixture(scope="session")
def signed_in(browser: Browser, site: Site) -> t.Callable[[str], t.Any]:
    """Signs in, once for each user of this run; returns the cookies."""

    @functools.cache
    def cookies(email: str) -> t.Any:
        context = browser.new_context()
        sign_in(context.new_page(), site, email)
        found = context.storage_state()
        context.close()
        return found

    return cookies


def sign_in(page: Page, site: Site, email: str) -> None:
    """Sign in to the example app."""
    page.goto(f"{site.address}/sign-in")
    page.get_by_label("Email").fill(email)
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button").click()
    page.wait_for_url(f"{site.address}/")


# What a page complains of besides answers of 4xx, which are what some tests are about, and checks that a later one has
# overtaken, fails the test.
EXPECTED = ("status of 4", "htmx:sendAbort", "htmx:afterRequest")


@contextlib.contextmanager
def looks(browser: Browser, signed_in: t.Callable[[str], t.Any]) -> t.Iterator[Looks]:
    """Opens pages; whatever they complain of in the browser's console fails at the end."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if message.type == "error":
            complaints.append(message.text)

    def dismiss(dialog: Dialog) -> None:
        complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def note(page: Page) -> None:
        page.on("console", hear)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", dismiss)

    def open_page(email: str | None = "ada@acme.example", **options: t.Any) -> Page:
        cookies = signed_in(email) if email is not None else None
        context = browser.new_context(
            **{"locale": "en-GB", "reduced_motion": "reduce", "storage_state": cookies, **options}
        )
        context.set_default_timeout(15_000)
        context.on("page", note)
        contexts.append(context)
        return context.new_page()

    yield open_page
    for context in contexts:
        context.close()
    assert [text for text in complaints if not any(word in text for word in EXPECTED)] == []


@pytest.fixture
def open_page(browser: Browser, signed_in: t.Callable[[str], t.Any]) -> t.Iterator[Looks]:
    with looks(browser, signed_in) as open_page:
        yield open_page


def issue_invoice(page: Page, site: Site, text: str = "Consulting") -> None:
    """Do what makes an event: issue an invoice on the example app's own page."""
    page.goto(site.address)
    page.get_by_label("For").fill(text)
    page.get_by_role("button", name="Issue").click()
    page.get_by_role("status").first.wait_for()


WCAG = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")


def check_accessibility(page: Page, rules: t.Sequence[str] = WCAG, place: str = "html") -> None:
    """Fail on whatever axe finds.

    :param rules: tags or names of rules; WCAG 2.2 A and AA unless said otherwise.
    :param place: a CSS selector of the part to look at.
    """
    if not page.evaluate("typeof axe === 'object'"):
        # Evaluated by the browser's own debugger, so that the page's policy, which forbids it, stays in force.
        page.evaluate(AXE.read_text())
    found = page.evaluate(
        "([place, rules]) => axe.run(place, {runOnly: rules, resultTypes: ['violations'], iframes: false})",
        [place, list(rules)],
    )
    told = [
        f"{each['id']}: {each['help']}: " + "; ".join(node["html"][:160] for node in each["nodes"][:3])
        for each in found["violations"]
    ]
    assert told == []


def subscribed(page: Page) -> str:
    """Return the id of the webhook on a page."""
    found = re.search(r"/webhooks/([0-9a-f-]{36})", page.content())
    assert found is not None
    return found[1]


__all__ = ["check_accessibility", "issue_invoice", "looks", "sign_in", "subscribed", "wait_until"]
