"""Makes the tests' small shop importable as `shop`, like a package of an app."""

from __future__ import annotations

import sys
import typing as t
from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.fixture(autouse=True, scope="session")
def _shop() -> t.Iterator[None]:
    sys.path.insert(0, str(HERE))
    yield
    sys.path.remove(str(HERE))


@pytest.fixture
def write(tmp_path: Path) -> t.Callable[..., Path]:
    """Write a catalogue and return its folder."""

    def write(text: str, name: str = "webhooks.yaml") -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path

    return write
