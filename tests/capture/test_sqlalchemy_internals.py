"""Private names of SQLAlchemy are read in one module only, so that a new release can break only that one."""

from __future__ import annotations

import ast
import typing as t
from pathlib import Path

import pytest

from flask_webhooks import capture
from flask_webhooks.capture import sqlalchemy_internals

ROOM = Path(capture.__file__).parent
MODULES = [each for each in sorted(ROOM.glob("*.py")) if each.name != "sqlalchemy_internals.py"]
BY_NAME = {"getattr", "hasattr", "setattr", "delattr"}
DOCUMENTED = {"_replace", "_asdict", "_fields"}
"""Methods of named tuples, which have an underscore only to leave all other names to the fields."""


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in DOCUMENTED


def is_own(node: ast.expr) -> bool:
    """Whether an attribute is read of an object by itself: methods that `fence` overrides call those of their base."""
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id == "super"
    return isinstance(node, ast.Name) and node.id in {"self", "cls"}


def private_names(tree: ast.AST) -> t.Iterator[str]:
    """Names with an underscore that are read of foreign objects, imported, or given to `getattr` and its like."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=value, attr=name) if is_private(name) and not is_own(value):
                yield name
            case ast.Call(func=ast.Name(id=function), args=[_, ast.Constant(value=str(name)), *_]) if (
                function in BY_NAME and is_private(name)
            ):
                yield name
            case ast.ImportFrom(module=str(module), names=names) if module.startswith("sqlalchemy"):
                yield from (each.name for each in names if is_private(each.name))


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.stem)
def test_no_other_module_reads_private_names(module: Path) -> None:
    assert sorted(private_names(ast.parse(module.read_text()))) == []


def test_all_that_is_offered_is_used() -> None:
    used = {
        name.name
        for module in MODULES
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.ImportFrom) and node.module == "sqlalchemy_internals"
        for name in node.names
    }

    assert sorted(set(sqlalchemy_internals.__all__) - used) == []


def test_a_private_name_is_found() -> None:
    code = "from sqlalchemy.orm import _orm_types\nself._own\nsession._new\ngetattr(state, '_pending', None)"

    assert sorted(private_names(ast.parse(code))) == ["_new", "_orm_types", "_pending"]
