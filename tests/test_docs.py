"""Statements of the documentation that a machine can check are true."""

from __future__ import annotations

import base64
import dataclasses
import re
import typing as t
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest
from werkzeug.datastructures import Headers

from flask_webhooks import payload, signing
from flask_webhooks.cli import webhooks_cli
from flask_webhooks.config import PREFIX, Settings

NONE_OF_OURS = {"WEBHOOKS_STRIPE_SECRET", "WEBHOOKS_TIMOUT"}
"""Keys that the page about configuration names because they are no settings."""
ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted(ROOT.glob("docs/**/*.md")),
]


def test_every_setting_is_documented_and_no_other() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()

    documented = re.findall(r"^\| `(WEBHOOKS_\w+)`", page, flags=re.MULTILINE)

    assert sorted(documented) == sorted(PREFIX + item.name.upper() for item in dataclasses.fields(Settings))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_settings_commands_and_their_options_exist(page: Path) -> None:
    text = page.read_text()
    settings = {PREFIX + item.name.upper() for item in dataclasses.fields(Settings)}

    assert set(re.findall(r"\bWEBHOOKS_[A-Z_]*[A-Z]\b", text)) <= settings | NONE_OF_OURS
    for name, rest in re.findall(r"flask webhooks ([a-z][a-z-]*)([^\n`#]*)", text):
        options = options_of(webhooks_cli.commands[name])
        assert set(re.findall(r"(?<= )--[a-z-]+", rest)) <= options, name


def options_of(command: click.Command) -> set[str]:
    """Those of a command, and of the commands below it."""
    own = {option for each in command.params for option in (*each.opts, *each.secondary_opts)}
    below = command.commands.values() if isinstance(command, click.Group) else ()
    return own.union(*map(options_of, below))


@pytest.mark.parametrize("page", ["catalogue.md", "receiving.md"])
def test_integers_that_other_parsers_round_are_marked(page: str) -> None:
    """They leave us with all their digits."""
    assert payload.encode({"id": 9007199254740993}) == '{"id":9007199254740993}'
    [told] = [part for part in (ROOT / "docs" / page).read_text().split("\n\n") if "2^53" in part]
    assert "JavaScript" in told


def test_log_lines_are_in_the_table_and_no_others() -> None:
    """Every log event that asks for an action, from warnings on, is documented."""
    page = (ROOT / "docs" / "operations.md").read_text().partition("**Log lines.**")[2].partition("\n## ")[0]
    sources = "".join(each.read_text() for each in (ROOT / "flask_webhooks").rglob("*.py"))
    loud = set(re.findall(r"logger\.(?:warning|error|exception)\(\s*\"([a-z_]+\.[a-z_]+)", sources))
    known = set(re.findall(r"\(\s*\"([a-z_]+\.[a-z_]+)", sources))
    first_cells = "".join(line.split("|")[1] for line in page.splitlines() if line.startswith("| "))
    told = {each for each in re.findall(r"`([a-z_]+\.[a-z_]+)`", first_cells) if "webhooks" not in each}

    assert loud <= told <= known


def blocks(having: str) -> str:
    """Return the Python of docs/receiving.md that has this in it."""
    page = (ROOT / "docs" / "receiving.md").read_text()
    [code] = [block for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL) if having in block]
    return code


NOW = datetime.now(UTC)
SECRET = signing.generate()


def by_hand(headers: t.Mapping[str, str], body: bytes = b"{}", secret: str = SECRET.text) -> bool:
    """What the function of the page says."""
    scope: dict[str, t.Any] = {}
    exec(blocks("is_ours"), scope)
    # As a web framework has them: names in any case.
    return bool(scope["is_ours"](Headers(dict(headers)), body, secret))


def test_the_verification_by_hand_works() -> None:
    headers = signing.headers("id-1", b"{}", datetime.now(UTC), [signing.generate(), SECRET])

    assert by_hand(headers)
    assert not by_hand(headers, b"{ }")
    assert not by_hand(headers, secret=signing.generate().text)


@pytest.mark.parametrize("minutes", [-10, -6, 6])
def test_by_hand_an_old_one_is_refused(minutes: int) -> None:
    at = datetime.now(UTC) + timedelta(minutes=minutes)

    assert not by_hand(signing.headers("id-1", b"{}", at, [SECRET]))


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_AAAA"])
def test_by_hand_a_secret_that_is_none_is_no_key(secret: str) -> None:
    with pytest.raises(ValueError, match="Set the secret"):
        by_hand(signing.headers("id-1", b"{}", datetime.now(UTC), [SECRET]), secret=secret)


def test_a_public_key_cannot_sign_by_hand() -> None:
    public = str(signing.generate("v1a").public)
    known = signing.parse("whsec_" + base64.b64encode(base64.b64decode(public)).decode())

    with pytest.raises(ValueError, match="Set the secret"):
        by_hand(signing.headers("id-1", b"{}", datetime.now(UTC), [known]), secret=public)


ODD = ("", "v1", "v1,", ",", "é", "v1,é", "\xff", "\ud800", "soon", "-1", "²", "9" * 5000, "NaN", " ")


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_by_hand_odd_headers_are_refused(name: str) -> None:
    good = signing.headers("id-1", b"{}", datetime.now(UTC), [SECRET])

    assert not by_hand({other: value for other, value in good.items() if other != name})
    for value in ODD:
        assert not by_hand({**good, name: value}), value
    assert not by_hand({})


def test_the_view_of_the_page_takes_what_is_ours_once_and_refuses_the_rest() -> None:
    kept: dict[str, t.Any] = {}
    scope: dict[str, t.Any] = {"__name__": "page", "is_known": kept.__contains__, "store": kept.__setitem__}
    exec(blocks("@app.post"), scope)
    app = scope["app"]
    app.config["HOOK_SECRET"] = SECRET.text
    client = app.test_client()
    good = signing.headers("id-1", b"{}", datetime.now(UTC), [SECRET])
    old = signing.headers("id-2", b"{}", datetime.now(UTC) - timedelta(minutes=10), [SECRET])

    assert client.post("/hooks", data=b"{}", headers=good).status_code == 204
    assert client.post("/hooks", data=b"{}", headers=good).status_code == 200
    for headers in (old, {}, *({**good, "webhook-signature": value} for value in ("v1", "é", "v1,é"))):
        assert client.post("/hooks", data=b"{}", headers=headers).status_code == 401
    assert client.post("/hooks", data=b"{ }", headers=good).status_code == 401
    assert kept == {"id-1": {}}
