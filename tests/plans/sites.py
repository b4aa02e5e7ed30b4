"""The places in the source that execute statements, and those that a piece of work reaches."""

from __future__ import annotations

import ast
import contextlib
import sys
import typing as t
from pathlib import Path

import sqlalchemy as sa

import flask_webhooks

__all__ = ["Site", "found_in", "met", "sites"]

ROOT = Path(flask_webhooks.__file__).parent
HELPERS = ("sql/parameters.py", "sql/compiled.py", "sql/ranges.py", "sql/transactions.py")
"""They execute what others have put together: the place is where they were called."""
EXECUTES = frozenset({"execute", "exec_driver_sql", "scalar", "scalars", "get_one"})
"""What connections and sessions are asked with; nothing else has methods of these names."""
BY_RECEIVER: t.Mapping[str, t.Callable[[str], bool]] = {
    "get": lambda name: name.endswith("session"),
    "refresh": lambda name: name.endswith("session"),
    "run": lambda name: name.isupper() or name == "move" or name.startswith("KeyedStatement("),
    "rows": lambda name: name == "prepared" or "(connection" in name,
}
"""Methods that are statements on some objects only, by how those are written."""


class Site(t.NamedTuple):
    """One call that executes a statement."""

    file: str
    first: int
    last: int
    function: str

    @property
    def lines(self) -> range:
        """The lines that the call takes."""
        return range(self.first, self.last + 1)

    @property
    def name(self) -> str:
        """What a list of places calls it: lines move."""
        return f"{self.file}:{self.function}"

    def __str__(self) -> str:
        return f"{self.file}:{self.first} {self.function}"


def sites() -> list[Site]:
    """Return every place of the package that executes a statement."""
    found: list[Site] = []
    for path in sorted(ROOT.rglob("*.py")):
        file = path.relative_to(ROOT).as_posix()
        if file not in HELPERS:
            found += found_in(path.read_text(), file)
    return found


def found_in(source: str, file: str) -> list[Site]:
    """Return the places of one file."""
    return list(_within(ast.parse(source), file, ""))


def _within(node: ast.AST, file: str, function: str) -> t.Iterator[Site]:
    for child in ast.iter_child_nodes(node):
        inner = function
        if isinstance(child, ast.FunctionDef | ast.ClassDef):
            inner = f"{function}.{child.name}".lstrip(".")
        elif isinstance(child, ast.Call) and _executes(child.func):
            yield Site(file, child.lineno, child.end_lineno or child.lineno, function)
        yield from _within(child, file, inner)


def _executes(called: ast.expr) -> bool:
    if not isinstance(called, ast.Attribute):
        return False
    is_one = BY_RECEIVER.get(called.attr)
    return called.attr in EXECUTES or (is_one is not None and is_one(ast.unparse(called.value)))


@contextlib.contextmanager
def met(engine: sa.Engine) -> t.Iterator[set[tuple[str, int]]]:
    """Collect the file and the line of each place that executes a statement meanwhile."""
    found: set[tuple[str, int]] = set()

    def note(*_: t.Any) -> None:
        frame = sys._getframe()
        while frame is not None:
            path = Path(frame.f_code.co_filename)
            if path.is_relative_to(ROOT):
                file = path.relative_to(ROOT).as_posix()
                if file not in HELPERS:
                    found.add((file, frame.f_lineno))
                    return
            frame = t.cast("t.Any", frame.f_back)

    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)
