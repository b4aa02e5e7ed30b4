"""Import paths of the catalogue (`package.module:Name`) to Python objects."""

from __future__ import annotations

import importlib
import pkgutil
import typing as t

from ..catalog import did_you_mean, nearest, suggestion


class Unfound(Exception):
    """An import path leads nowhere; holds what is wrong and what to write instead."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message, remedy)
        self.message = message
        self.remedy = remedy


def locate(path: str) -> t.Any:
    """Return the object of an import path. Imports its module.

    :raises Unfound: if the module or the name in it does not exist, or importing it fails.
    """
    module_name, _, name = path.partition(":")
    found: t.Any = _module(module_name)
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            public = [known for known in dir(found) if not known.startswith("_")]
            remedy = did_you_mean(part, public, "Write the name as it is written in the module.")
            raise Unfound(f'"{module_name}" has no "{part}".', remedy) from None
    return found


def _module(name: str) -> t.Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise Unfound(_failed(name, error), "Install it, or import the module to see more.") from error
        raise Unfound(f'there is no module "{error.name}".', _module_remedy(error.name)) from None
    # A module runs any code when it is imported, so anything can come out of it.
    except Exception as error:
        raise Unfound(
            _failed(name, error), "Import the module in a shell to see the whole traceback."
        ) from error


def _failed(name: str, error: Exception) -> str:
    return f'importing "{name}" fails: {type(error).__name__}: {error}.'


def _module_remedy(missing: str) -> str:
    parent, _, last = missing.rpartition(".")
    if parent:
        siblings = [found.name for found in pkgutil.iter_modules(importlib.import_module(parent).__path__)]
    else:
        siblings = [found.name for found in pkgutil.iter_modules()]
    close = nearest(last, siblings)
    meant = f"{parent}.{close}" if parent and close is not None else close
    return suggestion(meant, "Write package.module:Name, as Python would import it from where the app runs.")
