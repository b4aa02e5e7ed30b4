"""A module can be read before those that import it: there is no circle of imports, also none that only types see."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

from flask_webhooks import capture

ROOM = Path(capture.__file__).parent


def imports(module: Path) -> set[str]:
    """The modules of the room that one imports, for types too."""
    nodes = [node for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, ast.ImportFrom)]
    inside = [node for node in nodes if node.level == 1]
    return {
        name for node in inside for name in ([node.module] if node.module else [x.name for x in node.names])
    }


def test_no_circle() -> None:
    order = TopologicalSorter({each.stem: imports(each) for each in ROOM.glob("*.py")})

    assert list(order.static_order())
