"""What a catalogue's names stand for in Python, each looked up once: models and schemas.

Whatever cannot be found or used is noted as a problem where it was written, so that all of them are reported together.
"""

from __future__ import annotations

import typing as t

import marshmallow as ma
import sqlalchemy as sa
from sqlalchemy import orm

from ..catalog import Catalog, Channel
from ..errors import Problem
from .imports import Unfound, locate
from .paths import AnyMapper
from .plain import Plain, private_mistake


class Resolver:
    """Looks up the models and schemas of one catalogue and collects what is wrong."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.problems: list[Problem] = []
        self._schemas: dict[str, ma.Schema | None] = {}
        found = {name: self._found(channel) for name, channel in catalog.channels.items() if channel.model}
        registries = {each.registry for each in map(_mapper_of, found.values()) if each is not None}
        self.mappers = {
            name: self._mapper(channel, found.get(name), registries)
            for name, channel in catalog.channels.items()
        }
        """Channel name to the mapper of its model; `None`: it has none, or none that can be used."""

    def refuse(self, path: str, message: str, remedy: str = "") -> None:
        """Note a mistake where `path` was written."""
        self.problems.append(Problem(*self.catalog.where(path), path, message, remedy))

    def schema(self, name: str | None, path: str) -> ma.Schema | None:
        """Return the instance of a schema by its import path; `None` if it has none, or none that can be used."""
        if name is None:
            return None
        if name not in self._schemas:
            self._schemas[name] = None
            try:
                self._schemas[name] = _instance(locate(name), name)
            except Unfound as error:
                self.refuse(path, error.message, error.remedy)
        return self._schemas[name]

    def refuse_private(self, plain: Plain, channel: Channel | None, path: str) -> None:
        """Refuse to send, without a schema, columns that look private and that the catalogue does not name."""
        mistake = private_mistake(plain, channel)
        if mistake is not None:
            self.refuse(path, *mistake)

    @staticmethod
    def _found(channel: Channel) -> object:
        """Return what the import path of a channel's model leads to, or why it leads nowhere."""
        try:
            return locate(t.cast("str", channel.model))
        except Unfound as error:
            return error

    def _mapper(
        self, channel: Channel, found: object, registries: t.Collection[orm.registry]
    ) -> AnyMapper | None:
        if channel.model is None:
            return None
        path = f"{channel.path}.model"
        if isinstance(found, Unfound):
            made = _made(channel.model, registries)
            if made is None:
                self.refuse(path, found.message, found.remedy)
                return None
            found = made
        mapper = _mapper_of(found)
        if mapper is None:
            self.refuse(
                path, f'"{channel.model}" is no mapped class.', "Name a class that inherits from db.Model."
            )
            return None
        try:
            orm.configure_mappers()
        except sa.exc.SQLAlchemyError as error:
            remedy = "Mend the model, or import every module with models before the extension is initialised."
            self.refuse(path, f"SQLAlchemy cannot configure it: {error}.", remedy)
            return None
        return mapper


def _mapper_of(found: object) -> AnyMapper | None:
    if isinstance(found, orm.Mapper):
        return found
    try:
        # Not `inspect`, which would configure all mappers and raise what is wrong with any of them.
        return orm.class_mapper(t.cast("type[t.Any]", found), configure=False)
    except (sa.exc.ArgumentError, sa.exc.InvalidRequestError):
        return None


def _made(path: str, registries: t.Collection[orm.registry]) -> type | None:
    """Return the class that a function of the app made and left in no module, such as those of history tables.

    It is among the classes of `registries`: those of the catalogue's other models.
    """
    module, _, name = path.partition(":")
    classes = [mapper.class_ for registry in registries for mapper in registry.mappers]
    named = [cls for cls in classes if (cls.__module__, cls.__qualname__) == (module, name)]
    return named[0] if len(named) == 1 else None


def _instance(found: object, name: str) -> ma.Schema:
    if isinstance(found, ma.Schema):
        return found
    if not (isinstance(found, type) and issubclass(found, ma.Schema)):
        raise Unfound(
            f'"{name}" is no marshmallow schema.', "Name a class that inherits from marshmallow.Schema."
        )
    try:
        return found()
    # The class is the app's own: its __init__ can raise anything.
    except Exception as error:
        message = f'"{name}()" fails: {type(error).__name__}: {error}.'
        raise Unfound(message, "Make it work without arguments, or name an instance.") from error
