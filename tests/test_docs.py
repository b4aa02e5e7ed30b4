"""The documentation tells the truth where a machine can check it."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from flask_webhooks import signing
from flask_webhooks.config import PREFIX, Settings

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


def test_the_verification_by_hand_works() -> None:
    from datetime import UTC, datetime

    page = (ROOT / "docs" / "receiving.md").read_text()
    [code] = [
        block for block in re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL) if "is_ours" in block
    ]
    scope: dict[str, object] = {}
    exec(code, scope)
    is_ours = scope["is_ours"]
    assert callable(is_ours)
    secret = signing.generate()
    headers = signing.headers("id-1", b"{}", datetime.now(UTC), [signing.generate(), secret])

    assert is_ours(headers, b"{}", secret.text)
    assert not is_ours(headers, b"{ }", secret.text)
    assert not is_ours(headers, b"{}", signing.generate().text)
