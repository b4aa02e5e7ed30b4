"""How rooms import each other, and where their tests are.

Imports: without circles, also among imports for types, and only through a room's `__init__`.

import-linter checks the floors (`setup.cfg`), where imports for types do not count. Here they do: a reader has to open
both files of a circle to understand one of them, whether Python runs the import or not.
"""

from __future__ import annotations

import ast
import typing as t
from collections import defaultdict
from pathlib import Path

import flask_webhooks

ROOT = Path(flask_webhooks.__file__).parent
NAME = flask_webhooks.__name__

CLOSED = {
    "catalog",
    "checks",
    "config",
    "delivery",
    "models",
    "payload",
    "queue",
    "reference",
    "transport",
    "worker",
}
"""Rooms that are entered by what their `__init__` exports. The others are shelves: each of their modules is public."""

TESTS = Path(__file__).parent
SEVERAL_ROOMS = {
    "browser": "the console in Chromium",
    "example_app": "the other package of this repository",
    "faults": "processes that are killed, servers that go away",
    "hosts": "traits of real apps, combined at random",
    "integration": "the way of an event from a commit to a receiver",
    "neighbours": "apps with the usual Flask extensions",
    "plans": "the plans of all statements, by whatever room",
    "systems": "five products in miniature",
}
"""Folders of tests that are no room's, with what they test."""
WHOLE_REPOSITORY = {"docs", "oldest", "readme", "reprs", "rooms", "surface"}
"""Test modules that look at all files of the repository."""


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name, without the package's own."""
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imports(name: str) -> t.Iterator[str]:
    """The modules of the package that one imports, at its top, in a function, or for its types."""
    path = MODULES[name]
    package = name.split(".") if path.name == "__init__.py" and name else name.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                above = package[: len(package) - node.level + 1]
                module = ".".join([*above, *(node.module or "").split(".")]).strip(".")
            elif (node.module or "").partition(".")[0] == NAME:
                module = (node.module or "").partition(".")[2]
            else:
                continue
            for alias in node.names:
                inner = f"{module}.{alias.name}".strip(".")
                yield inner if inner in MODULES else module


def circles() -> set[frozenset[str]]:
    """The groups of modules that all lead to each other (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: set[frozenset[str]] = set()
    graph = {name: set(imports(name)) - {name} for name in MODULES}

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in graph[name]:
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            group = frozenset(stack[stack.index(name) :])
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.add(group)

    for name in graph:
        if name not in index:
            visit(name)
    return found


def test_no_modules_import_each_other() -> None:
    assert circles() == set()


def test_closed_rooms_are_entered_by_their_init() -> None:
    past = defaultdict(set)
    for name in MODULES:
        for other in imports(name):
            room, _, module = other.partition(".")
            if room in CLOSED and module and name.partition(".")[0] != room:
                past[name].add(other)

    assert past == {}


def test_files_are_short_enough_to_be_read() -> None:
    assert {name for name, path in MODULES.items() if path.read_text().count("\n") > 450} == set()


def test_the_init_of_a_room_lists_its_modules() -> None:
    missing = defaultdict(set)
    for path in ROOT.glob("*/**/__init__.py"):
        said = ast.get_docstring(ast.parse(path.read_text())) or ""
        within = {each.stem for each in path.parent.glob("*.py")} - {"__init__", "__main__"}
        within |= {each.parent.name for each in path.parent.glob("*/__init__.py")}
        missing[path.parent.name] |= {name for name in within if f"`{name}`" not in said}

    assert {room: names for room, names in missing.items() if names} == {}


def test_tests_are_where_what_they_test_is() -> None:
    misplaced = set()
    for path in TESTS.rglob("test_*.py"):
        folder = path.parent.relative_to(TESTS)
        if folder.parts:
            is_known = folder.parts[0] in SEVERAL_ROOMS or (ROOT / folder).is_dir()
        else:
            name = path.stem.removeprefix("test_")
            is_known = name in WHOLE_REPOSITORY or (ROOT / f"{name}.py").is_file()
        if not is_known:
            misplaced.add(str(path.relative_to(TESTS)))

    assert misplaced == set()


def test_what_is_listed_as_no_rooms_tests_exists() -> None:
    assert {name for name in SEVERAL_ROOMS if not (TESTS / name).is_dir() or (ROOT / name).is_dir()} == set()
    assert {name for name in WHOLE_REPOSITORY if not (TESTS / f"test_{name}.py").is_file()} == set()
