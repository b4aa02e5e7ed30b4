"""Public names stay: see `tests/surface.py`."""

from __future__ import annotations

import difflib
from pathlib import Path

from tests.host import make_host
from tests.surface import KEPT, surface


def test_what_others_hold_on_to_stays(tmp_path: Path) -> None:
    then, now = KEPT.read_text(), surface(make_host(f"sqlite:///{tmp_path / 'test.sqlite'}", tmp_path))
    changed = "\n".join(
        difflib.unified_diff(then.splitlines(), now.splitlines(), "before", "now", n=0, lineterm="")
    )

    assert then == now, f"If that is meant, tell CHANGES.md and run `python -m tests.surface`.\n{changed}"
