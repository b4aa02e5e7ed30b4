"""The console in the host's design, language and place: name, logo, accent colour, templates, prefix, proxy."""

from __future__ import annotations

import io
import re
import typing as t
from pathlib import Path

import jinja2
import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import read_mo
from flask import Flask
from flask_babel import Babel
from werkzeug.middleware.proxy_fix import ProxyFix

import flask_webhooks
from flask_webhooks import Webhooks
from flask_webhooks.config import ConsoleTheme
from flask_webhooks.console import colours
from flask_webhooks.console.formatting import ago, percent, seconds, span
from flask_webhooks.console.i18n import IN_A_FORM, sentence
from flask_webhooks.errors import SENTENCES, ConfigurationError, ErrorText
from flask_webhooks.queries import NOTES
from flask_webhooks.state import state_of
from tests.console.conftest import Visitor, load_principal, places, write_log

PACKAGE = Path(flask_webhooks.__file__).parent


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """One database: all of this is about HTML and not about SQL."""
    return f"sqlite:///{tmp_path / 'test.sqlite'}"


@pytest.fixture
def make_console(make_app: t.Callable[..., Flask]) -> t.Callable[..., Flask]:
    """Makes host apps with settings of the console's look."""

    def make(**config: t.Any) -> Flask:
        hooks = Webhooks()
        hooks.principal_loader(load_principal)
        return make_app(webhooks=hooks, **config)

    return make


def test_name_logo_and_home_are_the_hosts(make_console: t.Callable[..., Flask]) -> None:
    app = make_console(WEBHOOKS_CONSOLE={"name": "Acme <Books>", "logo": "/logo.svg", "home": "/start"})

    page = Visitor(app).get("/").text

    assert "Acme &lt;Books&gt;" in page
    assert 'src="/logo.svg"' in page
    assert 'href="/start"' in page


@pytest.mark.parametrize("accent", ["#ffff00", "#000000", "#ffffff", "#4f46e5", "#ff5a36"])
def test_any_accent_is_made_legible(make_console: t.Callable[..., Flask], accent: str) -> None:
    css = Visitor(make_console(WEBHOOKS_CONSOLE={"accent": accent})).get("/accent.css").text

    (light, on_light), (dark, on_dark) = re.findall(r"--accent:(#\w{6});--on-accent:(#\w{6})", css)
    pairs = ((light, "#ffffff"), (on_light, light), (dark, "#15171c"), (on_dark, dark))
    assert [pair for pair in pairs if colours.contrast(*pair) < 4.5] == []


@pytest.mark.parametrize(
    "wrong",
    [{"accent": "red"}, {"colour": "#ffffff"}, {"name": ""}, "blue"],
    ids=["word", "unknown", "empty", "text"],
)
def test_a_wrong_look_is_refused(make_console: t.Callable[..., Flask], wrong: t.Any) -> None:
    with pytest.raises(ConfigurationError, match="WEBHOOKS_CONSOLE"):
        make_console(WEBHOOKS_CONSOLE=wrong)


def test_a_base_template_of_the_hosts_frames_every_page(make_console: t.Callable[..., Flask]) -> None:
    app = make_console(WEBHOOKS_CONSOLE=ConsoleTheme(base="mine.html"))
    app.jinja_loader = jinja2.DictLoader(
        {
            "mine.html": "<title>{% block webhooks_title %}{% endblock %}</title>"
            "{% block webhooks_head %}{% endblock %}<nav>Mine</nav>{% block webhooks_body %}{% endblock %}"
        }
    )

    answer = Visitor(app).get("/")

    assert "<nav>Mine</nav>" in answer.text
    assert "Add your first webhook" in answer.text
    assert (
        "Content-Security-Policy" not in answer.headers
    )  # what the host's own template needs, the host knows


def test_a_single_template_can_be_replaced(make_console: t.Callable[..., Flask]) -> None:
    app = make_console()
    app.jinja_loader = jinja2.DictLoader({"webhooks/problem.html": "Ours: {{ problem.status }}"})

    assert Visitor(app).get("/no/such/page").text == "Ours: 404"


def test_it_works_under_a_prefix_behind_a_proxy(make_console: t.Callable[..., Flask]) -> None:
    app = make_console(WEBHOOKS_URL_PREFIX="/hooks")
    app.wsgi_app = ProxyFix(app.wsgi_app, x_prefix=1, x_host=1, x_proto=1)  # type: ignore[method-assign]
    log = write_log(state_of(app))
    visitor = Visitor(app)
    visitor.prefix = "/hooks/console"
    visitor.headers |= {
        "X-Forwarded-Prefix": "/app",
        "X-Forwarded-Host": "example.org",
        "X-Forwarded-Proto": "https",
    }

    for path in (
        "/",
        f"/webhooks/{log.subscription.id}",
        f"/deliveries/{log.deliveries['failed']}",
        "/deliveries",
    ):
        page = visitor.get(path).text
        links = re.findall(r'(?:href|src|action|hx-get|hx-post|formaction|data-numbers)="(/[^"]*)"', page)
        assert links
        assert [link for link in links if not link.startswith("/app/hooks/console/")] == [], path
    answer = visitor.post(f"/webhooks/{log.subscription.id}/switch", Origin="https://example.org")
    assert answer.headers["Location"].startswith("/app/hooks/console/")


def test_assets_change_their_address_with_their_content(make_console: t.Callable[..., Flask]) -> None:
    app = make_console()
    for address in re.findall(r'(?:href|src)="(/webhooks/console/static/[^"]+)"', Visitor(app).get("/").text):
        assert "?v=" in address
        answer = app.test_client().get(address)
        assert answer.status_code == 200
        answer.close()


# ---- languages -------------------------------------------------------------------------------------------


def speaking(app: Flask, language: str) -> Flask:
    """Give a host Flask-Babel."""
    Babel(app, locale_selector=lambda: language)
    return app


def test_every_page_speaks_german(make_console: t.Callable[..., Flask]) -> None:
    app = speaking(make_console(), "de")
    state = state_of(app)
    log = write_log(state)
    visitor = Visitor(app, operator=True)

    page = visitor.get(f"/webhooks/{log.subscription.id}").text

    assert '<html lang="de">' in page
    assert "Fehlschläge in Folge" in page
    assert "1 Zustellung wird zurückgehalten" in page
    for method, path in places(state, log):
        if method == "GET":
            assert visitor.get(path).status_code == 200, path


def test_a_language_that_is_not_there_is_english(make_console: t.Callable[..., Flask]) -> None:
    page = Visitor(speaking(make_console(), "fr")).get("/").text

    assert '<html lang="en">' in page
    assert "Add your first webhook" in page


def test_german_is_complete() -> None:
    settings = [
        ("console/**.py", "python"),
        ("errors/sentences.py", "python"),
        ("outcome.py", "python"),
        ("queries/answers.py", "python"),
        ("templates/webhooks/**.html", "jinja2"),
    ]
    keywords = {"_": None, "N_": None, "ngettext": (1, 2), "Sentence": (1,)}
    wanted = set()
    for _file, _line, message, *_ in extract_from_dir(str(PACKAGE), settings, keywords=keywords):
        while not isinstance(message, str):  # of a plural the singular is the key
            message = message[0]
        wanted.add(message)

    assert len(wanted) > 500
    assert wanted > set(NOTES.values())
    assert wanted - german().keys() == set()


def german() -> dict[str, str]:
    """Return what the console says in German, by the English; of a plural the singular."""
    raw = (PACKAGE / "translations" / "de" / "LC_MESSAGES" / "webhooks.mo").read_bytes()
    return {
        each.id if isinstance(each.id, str) else each.id[0]: each.string
        if isinstance(each.string, str)
        else each.string[0]
        for each in read_mo(io.BytesIO(raw))
    }


def names_in(text: str) -> list[str]:
    return sorted(set(re.findall(r"%\((\w+)\)s", text)))


@pytest.mark.parametrize("code", SENTENCES)
def test_a_mistake_has_the_same_values_in_german(code: str) -> None:
    english, known = SENTENCES[code].english, german()

    assert names_in(known[english]) == names_in(english)
    if code in IN_A_FORM:
        assert names_in(known[IN_A_FORM[code]]) == names_in(IN_A_FORM[code])
        assert set(names_in(IN_A_FORM[code])) <= set(names_in(english))


def test_what_a_form_says_otherwise_is_said_by_code() -> None:
    assert IN_A_FORM.keys() <= SENTENCES.keys()


MISTAKES: tuple[dict[str, t.Any], ...] = (
    {"url": "ftp://example.com"},
    {"url": "http://example.com"},
    {"url": "https://"},
    {"url": "https://a b/"},
    {"url": "https://example.com/#part"},
    {"url": "https://me:secret@example.com/"},
    {"url": "https://example.com/" + "x" * 5000},
    {"url": "https://[1]/"},
    {"url": "https://1.2.3/"},
    {"url": "https://-.example/"},
    {"url": "https://☃.example/"},
    {"url": "https://127.0.0.1/"},
    {"url": "https://example.com:444/"},
    {"url": "https://example.com:6379/"},
    {"url": "https://example.com:0/"},
    {"description": "x" * 2000},
    {"event": []},
    {"event": ["ledgers.closed", "invoices.created"]},
    {"event": ["ledgers.*", "*"]},
    {"retry": "own", "waits": "5, soon"},
    {"rate_limit": "5000"},
    {"format": "entity"},
    {"header_name": ["Host"], "header_value": ["x"]},
    {"header_name": ["A b"], "header_value": ["x"]},
    {"header_name": ["X-A"], "header_value": ["\u00e9"]},
    {"header_name": ["X-A", "x-a"], "header_value": ["1", "2"]},
)
FORM = {
    "url": "https://93.184.215.14/",
    "active": "on",
    "event": ["invoices.created"],
    "environment": "staging",
}


def test_every_mistake_is_shown_in_german(make_console: t.Callable[..., Flask]) -> None:
    app = make_console(WEBHOOKS_ALLOW_HTTP=False, WEBHOOKS_ALLOWED_NETWORKS=())
    visitor = Visitor(app)

    def mistakes() -> list[str]:
        found = []
        for wrong in MISTAKES:
            page = visitor.post("/webhooks/new", {**FORM, **wrong}).text
            texts = re.findall(r'<p class="wh-error" id="[^>]*>.*?<span>(.*?)</span>', page, re.DOTALL)
            assert texts, wrong
            found += texts
        return found

    english = mistakes()
    german = dict(zip(english, mistakes_in(app, "de", mistakes), strict=True))

    assert [text for text, translation in german.items() if text == translation] == []


def mistakes_in(app: Flask, language: str, mistakes: t.Callable[[], list[str]]) -> list[str]:
    speaking(app, language)
    return mistakes()


def test_what_is_said_of_a_mistake_keeps_its_particulars() -> None:
    said = sentence(ErrorText("too_many_headers", count=30, most=20))

    assert said == "There are 30 headers; at most 20 are allowed."
    assert sentence("Something new.") == "Something new."
    assert sentence(ErrorText("no_listeners")) == "Choose at least one event."


# ---- how values are written ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("share", "text"),
    [(None, "\u2013"), (1.0, "100 %"), (0.9999, "99.9 %"), (0.0, "0.0 %"), (0.945, "94.5 %")],
)
def test_a_share_is_never_rounded_up_to_all(share: float | None, text: str) -> None:
    assert percent(share) == text


@pytest.mark.parametrize(("length", "text"), [(0.0004, "0.4 ms"), (0.045, "45 ms"), (1.2, "1.20 s")])
def test_short_durations(length: float, text: str) -> None:
    assert seconds(length) == text


@pytest.mark.parametrize(
    ("length", "text"),
    [(59, "59 s"), (59.7, "1 min"), (3599, "1 h"), (47.8 * 3600, "2 d"), (7200, "2 h"), (3 * 86400, "3 d")],
)
def test_long_durations(length: float, text: str) -> None:
    assert span(length) == text


def test_past_and_future_are_distinguished() -> None:
    from datetime import UTC, datetime, timedelta

    now = datetime.now(UTC)
    assert ago(now - timedelta(minutes=3)) == "3 min ago"
    assert ago(now + timedelta(minutes=3, seconds=1)) == "in 3 min"
    assert ago(now) == "just now"
