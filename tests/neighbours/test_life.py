"""An app with another extension: both work, whichever was initialised first."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.neighbours.app import beside, live
from tests.neighbours.extensions import NEIGHBOURS, Neighbour


@pytest.mark.parametrize("is_first", [True, False], ids=["first", "last"])
@pytest.mark.parametrize("them", NEIGHBOURS, ids=lambda them: them.name)
def test_both_do_their_work(tmp_path: Path, them: Neighbour, is_first: bool) -> None:
    with beside(tmp_path, them.add, is_first=is_first, **them.config) as app:
        them.check(app)
        live(app, base=them.base, policy=them.policy, adds_scripts=them.adds_scripts)
