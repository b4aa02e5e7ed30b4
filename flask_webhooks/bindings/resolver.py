"""What a catalogue's names stand for in Python, each looked up once: models and schemas.

Whatever cannot be found or used is noted as a problem where it was written, so that all of them are reported together.
"""

from __future__ import annotations

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
        self.mappers = {name: self._mapper(channel) for name, channel in catalog.channels.items()}
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
        """Refuse to send, without a schema, columns that look private and that nobody chose."""
        mistake = private_mistake(plain, channel)
        if mistake is not None:
            self.refuse(path, *mistake)

    def _mapper(self, channel: Channel) -> AnyMapper | None:
        if channel.model is None:
            return None
        path = f"{channel.path}.model"
        try:
            mapper = sa.inspect(locate(channel.model), raiseerr=False)
            if isinstance(mapper, orm.Mapper):
                orm.configure_mappers()
                return mapper
        except Unfound as error:
            self.refuse(path, error.message, error.remedy)
            return None
        except sa.exc.SQLAlchemyError as error:
            remedy = "Mend the model, or import every module with models before the extension is initialised."
            self.refuse(path, f"SQLAlchemy cannot configure it: {error}.", remedy)
            return None
        self.refuse(
            path, f'"{channel.model}" is no mapped class.', "Name a class that inherits from db.Model."
        )
        return None


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
