"""`make test-oldest` runs with the lowest versions that pyproject.toml allows."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def declared() -> dict[str, str]:
    """Name to lowest version, of everything that an app installs with us from the index."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    found = {}
    for line in [*project["dependencies"], *extras["postgres"], *extras["metrics"]]:
        match = re.fullmatch(r"([a-z0-9-]+)(?:\[\w+\])?>=([\d.]+)", line)
        assert match, line
        found[match[1]] = match[2]
    return found


def test_the_lowest_versions_are_those_declared() -> None:
    lines = (ROOT / "tests" / "oldest.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if not line.startswith("#"))

    assert pinned.keys() == declared().keys()
    for name, lowest in declared().items():
        assert f"{pinned[name]}.".startswith(f"{lowest}."), name


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("werkzeug", (3, 0, 6)),
        ("urllib3", (2, 6, 3)),
        ("cryptography", (44, 0, 1)),
        ("marshmallow", (3, 26, 2)),
    ],
)
def test_no_version_with_a_known_hole_is_let_in(name: str, safe: tuple[int, ...]) -> None:
    assert tuple(map(int, declared()[name].split("."))) >= safe
