"""Where catalogues come from: a file, a resource of a package, or a name that a package has registered."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import re
import typing as t
from pathlib import Path

from ..errors import Problem
from .names import did_you_mean, nearest, suggestion

ENTRY_POINTS = "flask_webhooks.catalogs"
"""Group of entry points `name = package:resource` for packages that bring a catalogue along."""

_RESOURCE = re.compile(r"([A-Za-z_]\w+(?:\.[A-Za-z_]\w*)*):(.+)")
_BARE = re.compile(r"[A-Za-z0-9_.-]+")


class SourceText(t.NamedTuple):
    """The text of one source."""

    file: str
    """As it was configured; messages name it like this."""
    text: str


def read_source(source: str | Path, root: Path) -> SourceText | Problem:
    """Return the text of a source, or why it cannot be read.

    :param source: a path, absolute or relative to `root`; `package:resource`; or the name of an entry point.
    """
    name = str(source)
    try:
        if isinstance(source, str) and (found := _RESOURCE.fullmatch(source)):
            return _decoded(name, _resource(found[1], found[2]))
        path = root / source
        # The file first: to look through the entry points reads a file of every installed package.
        if not path.is_file() and _BARE.fullmatch(name) and (value := _registered(name)):
            package, _, resource = value.partition(":")
            return _decoded(name, _resource(package.strip(), resource.strip()))
        return _decoded(name, path.read_bytes())
    except (OSError, ImportError, ValueError, TypeError) as error:
        return _missing(name, root, error)


def _resource(package: str, resource: str) -> bytes:
    return importlib.resources.files(package).joinpath(resource).read_bytes()


def _registered(name: str) -> str | None:
    return next(
        (point.value for point in importlib.metadata.entry_points(group=ENTRY_POINTS, name=name)), None
    )


def _decoded(name: str, content: bytes) -> SourceText | Problem:
    try:
        return SourceText(name, content.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        return Problem(name, line, "(document)", "is not UTF-8.", "Save the file as UTF-8.")


def _missing(name: str, root: Path, error: Exception) -> Problem:
    if _RESOURCE.fullmatch(name):
        package, _, resource = name.partition(":")
        remedy = f'Looked for "{resource}" in the package "{package}": is it installed, with its data files?'
        return Problem(name, 1, "(document)", f"cannot be read: {error}.", remedy)
    path = root / name
    registered = [point.name for point in importlib.metadata.entry_points(group=ENTRY_POINTS)]
    if _BARE.fullmatch(name) and not path.suffix and registered:
        remedy = did_you_mean(name, registered, f"Registered catalogues: {', '.join(registered)}.")
        return Problem(name, 1, "(document)", "is neither a file nor a registered catalogue.", remedy)
    try:
        near = nearest(path.name, [entry.name for entry in path.parent.iterdir()])
    except (OSError, ValueError):
        near = None
    remedy = suggestion(near) or _none_yet(path, root)
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return Problem(name, 1, "(document)", f"cannot be read: {reason}.", remedy)


def _none_yet(path: Path, root: Path) -> str:
    looked = f"Looked at {path}."
    if not path.is_relative_to(Path.cwd()) and path.is_relative_to(root):
        # `Flask("test")` has the folder of Python's own package `test`.
        looked += (
            " Paths start at app.root_path, which is that of the package or module that Flask(...) was given."
        )
    return (
        f"{looked} Run `flask webhooks init` to write one from your models, "
        "or set WEBHOOKS_CATALOG to where it is, such as an absolute path."
    )
