"""The public surface: names that hosts, receivers, operators and their dashboards depend on.

python -m tests.surface writes `tests/surface.txt` anew. A line that goes away breaks somebody: it goes with a
major version and an entry in CHANGES.md, or not at all.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import tempfile
import types
import typing as t
from importlib import import_module
from pathlib import Path

import click
from flask import Flask
from prometheus_client.registry import CollectorRegistry

import flask_webhooks
from flask_webhooks import errors, models
from flask_webhooks.cli import webhooks_cli
from flask_webhooks.config import Settings
from flask_webhooks.metrics import Collector
from flask_webhooks.queue import JOB
from tests.host import make_host

KEPT = Path(__file__).with_name("surface.txt")
PACKAGE = Path(flask_webhooks.__file__).parent
ROOMS = ("", ".metrics", ".receiving", ".signals", ".testing")
LEVELS = ("debug", "info", "warning", "error", "exception", "critical")


def surface(app: Flask) -> str:
    """Return all of it, a line each, sorted below headings."""
    parts = {
        "exports": exports(),
        "job": [JOB],
        "errors": codes(),
        "settings": [f"WEBHOOKS_{field.name.upper()}" for field in dataclasses.fields(Settings)],
        "logged": logged(),
        "tables": tables(),
        "commands": commands(webhooks_cli, "flask webhooks"),
        "routes": routes(app),
        "openapi": components(app),
        "metrics": metrics(app),
    }
    return "\n".join("\n".join([f"[{head}]", *sorted(set(lines)), ""]) for head, lines in parts.items())


def exports() -> list[str]:
    """Return the names that one may import, with the parameters of what one may call."""
    return [
        line
        for room in ROOMS
        for name in import_module(f"flask_webhooks{room}").__all__
        for line in _named(
            f"flask_webhooks{room}.{name}", getattr(import_module(f"flask_webhooks{room}"), name)
        )
    ]


def _named(name: str, found: t.Any) -> t.Iterator[str]:
    if inspect.isclass(found):
        bases = ", ".join(
            each.__name__ for each in found.__mro__[1:-1] if each.__module__.startswith("flask_webhooks")
        )
        yield f"{name}({bases})" if bases else name
        if dataclasses.is_dataclass(found):
            yield from (f"{name}.{field.name}" for field in dataclasses.fields(found))
        for key, member in inspect.getmembers(found):
            ours = str(getattr(member, "__module__", "")).startswith("flask_webhooks")
            if isinstance(member, property) and not key.startswith("_"):
                yield f"{name}.{key}"
            elif ours and callable(member) and (not key.startswith("_") or key == "__init__"):
                yield f"{name}.{key}{_parameters(member)}"
    elif isinstance(found, types.FunctionType):
        yield name + _parameters(found)
    else:
        yield name


def _parameters(call: t.Callable[..., t.Any]) -> str:
    signature = inspect.signature(call)
    kept = [each.replace(annotation=inspect.Parameter.empty) for each in signature.parameters.values()]
    return str(signature.replace(parameters=kept, return_annotation=inspect.Signature.empty))


def codes() -> list[str]:
    """Return the classes of errors that have a code, with it."""
    found = [each for each in vars(errors).values() if inspect.isclass(each) and issubclass(each, Exception)]
    return [f"{each.__name__} {each.code}" for each in found if hasattr(each, "code")]


def logged() -> list[str]:
    """Return each logger's events with their levels, as the source has them."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        loggers = dict(_loggers(tree, path))
        for node in ast.walk(tree):
            match node:
                case ast.Call(ast.Attribute(ast.Name(name), level), [ast.Constant(str(text)), *_]) if (
                    name in loggers and level in LEVELS
                ):
                    found.append(f"{loggers[name]} {level} {text.split(':')[0]}")
                case ast.Call(ast.Attribute(ast.Name(name), level)) if name in loggers and level in LEVELS:
                    raise AssertionError(
                        f"{path.name}:{node.lineno}: begin what is logged with a constant event"
                    )
    return found


def _loggers(tree: ast.Module, path: Path) -> t.Iterator[tuple[str, str]]:
    module = ".".join(["flask_webhooks", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(
        ".__init__"
    )
    here = {
        "__name__": module,
        "__package__": module if path.stem == "__init__" else module.rpartition(".")[0],
    }
    for node in ast.walk(tree):
        match node:
            case ast.Assign(
                [ast.Name(name)], ast.Call(ast.Attribute(_, "getLogger"), [ast.Constant(str(text))])
            ):
                yield name, text
            case ast.Assign([ast.Name(name)], ast.Call(ast.Attribute(_, "getLogger"), [ast.Name(word)])):
                yield name, here[word]


def tables() -> list[str]:
    """Return our tables, their columns and indexes."""
    found = []
    for table in models.Base.metadata.tables.values():
        found += [f"{table.name}.{column.name}" for column in table.columns]
        found += [f"{table.name} index {index.name}" for index in table.indexes]
        found += [
            f"{table.name} {each.__visit_name__} {each.name}" for each in table.constraints if each.name
        ]
    return found


def commands(group: click.Command, path: str) -> list[str]:
    """Return the commands below one, with their options and arguments."""
    given = [
        " ".join(sorted(each.opts)) if isinstance(each, click.Option) else str(each.name).upper()
        for each in group.params
    ]
    found = [path, *(f"{path} {each}" for each in given)]
    if isinstance(group, click.Group):
        found += [line for name, each in group.commands.items() for line in commands(each, f"{path} {name}")]
    return found


def routes(app: Flask) -> list[str]:
    """Return our URLs with their methods and the names for `url_for`."""
    return [
        f"{','.join(sorted((rule.methods or set()) - {'HEAD', 'OPTIONS'}))} {rule.rule} {rule.endpoint}"
        for rule in app.url_map.iter_rules()
        if rule.endpoint.startswith("webhooks") and ".other_" not in rule.endpoint
    ]


def components(app: Flask) -> list[str]:
    """Return the names in the API's document that generated clients make classes and methods of."""
    document = app.test_client().get("/webhooks/api/openapi.json", headers={"X-Owner": "1"}).get_json()
    found = [f"{kind} {name}" for kind, named in document["components"].items() for name in named]
    for path, item in document["paths"].items():
        found += [
            f"{method} {path} {each.get('operationId')}"
            for method, each in item.items()
            if method != "parameters"
        ]
    return found


def metrics(app: Flask) -> list[str]:
    """Return the metrics with their kinds and labels."""
    registry = CollectorRegistry()
    with app.app_context():
        registry.register(Collector(app))
        found = list(registry.collect())
    labels = {each.name: sorted({key for sample in each.samples for key in sample.labels}) for each in found}
    return [" ".join([each.type, each.name, *labels[each.name]]) for each in found]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        KEPT.write_text(surface(make_host(f"sqlite:///{folder}/test.sqlite", Path(folder))))
