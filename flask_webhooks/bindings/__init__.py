"""What the catalogue names, found in Python and checked: models, columns, schemas, relationships.

`bind` at start-up resolves every import path once; after that an event costs no look-up. This room knows
SQLAlchemy and marshmallow, and neither Flask nor YAML.

===============  =================================================================
`imports`        import paths to objects
`paths`          dotted paths over mapped classes
`owner_steps`    steps of the path to an owner: relationships, foreign keys
`column_checks`  `when`, `changed`, `ignore` against columns and their types
`columns`        which columns JSON can hold
`private`        private columns, by their names and types
`stored_values`  the form in which a column stores an assigned value
`schema_keys`    keys of what a schema dumps, and what of a row they read
`host_code`      whether making `data` of a row can run code of the host's
`serializers`    rows to `data`, by a schema or by columns
`changes`        what an update changed, as `data` shows it: the include `changes`
`plain`          what makes `data` without a schema: columns, or a method
`resolver`       what a catalogue's names stand for; collects problems
`includes`       additional values in `data`
`touches`        the rows that a change updates as well
`binder`         one channel with all of that
`channel`        the result: `BoundChannel`
`emitted`        emitted data to `data`
`json_types`     JSON Schema of columns and marshmallow fields
`field_types`    names and types in `data`, for the lock file
===============  =================================================================
"""

from __future__ import annotations

import typing as t
from pathlib import Path
from types import MappingProxyType

from ..catalog import Catalog, examine
from ..errors import CatalogError
from .binder import Binder
from .channel import CHANGES, BoundChannel, BoundInclude, BoundTouch
from .field_types import describe

__all__ = ["CHANGES", "BoundChannel", "BoundInclude", "BoundTouch", "bind", "describe", "open_catalog"]


def bind(catalog: Catalog) -> t.Mapping[str, BoundChannel]:
    """Return every channel bound to its model, by channel name. Imports the models and schemas.

    Every relationship must be resolvable, so all modules with models must have been imported.

    :raises CatalogError: with everything that does not exist or does not fit, each where it was written.
    """
    binder = Binder(catalog)
    bound = {name: binder.bind(channel) for name, channel in catalog.channels.items()}
    if binder.problems:
        raise CatalogError(binder.problems)
    return MappingProxyType(bound)


def open_catalog(
    sources: t.Sequence[str | Path] | str | Path, *, root: Path
) -> tuple[Catalog, t.Mapping[str, BoundChannel]]:
    """Load and bind in one call, so that mistakes of both kinds are reported together.

    :param sources: see `catalog.load`, as `root`.
    :raises CatalogError: with every mistake of the text and of what it names, by file and line.
    """
    catalog, problems = examine(sources, root=root)
    binder = Binder(catalog)
    bound = {name: binder.bind(channel) for name, channel in catalog.channels.items()}
    if problems or binder.problems:
        raise CatalogError(
            sorted([*problems, *binder.problems], key=lambda problem: (problem.file, problem.line))
        )
    return catalog, MappingProxyType(bound)
