"""What makes `data` where no schema does: the columns of a row, some of them, or a method of the model.

The law of this room: what a channel has chosen for its model holds wherever rows of that model are shown without a
schema, in includes too.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing as t
from collections.abc import Mapping

from ..catalog import did_you_mean
from ..errors import PayloadError
from .paths import AnyMapper, static_attribute
from .private import private_columns
from .schema_keys import names_in
from .serializers import ColumnRenderer, Renderer, column_renderer

if t.TYPE_CHECKING:
    from ..catalog import Channel

__all__ = ["MethodRenderer", "Plain", "choice_mistakes", "private_mistake"]


@dataclasses.dataclass(frozen=True, slots=True)
class MethodRenderer:
    """What a method of the model returns: `data: to_dict`."""

    method: str

    def __call__(self, row: t.Any) -> dict[str, t.Any]:
        found = getattr(row, self.method)()
        if not isinstance(found, Mapping):
            raise PayloadError(
                f"{type(row).__name__}.{self.method}() returned {type(found).__name__}. Let it return a dict."
            )
        return dict(found)


@dataclasses.dataclass(frozen=True, slots=True)
class Plain:
    """How rows of one class are shown without a schema."""

    mapper: AnyMapper
    keys: tuple[str, ...]
    """Columns; of a method none, for what it returns is not known."""
    method: str | None = None
    is_chosen: bool = False
    """Whether the catalogue says so: else it is every column that JSON can hold."""

    @classmethod
    def of(cls, mapper: AnyMapper, channel: Channel | None = None) -> Plain:
        """Return what a channel says of its model, as far as it can be done."""
        every = column_renderer(mapper).keys
        if channel is None:
            return cls(mapper, every)
        if channel.data is not None:
            return cls(mapper, (), channel.data, is_chosen=True)
        if channel.fields is not None:
            return cls(mapper, tuple(key for key in channel.fields if key in every), is_chosen=True)
        left = tuple(key for key in every if key not in channel.exclude)
        return cls(mapper, left, is_chosen=bool(channel.exclude or channel.public))

    @property
    def render(self) -> Renderer:
        """What shows a row."""
        return ColumnRenderer(self.mapper, self.keys) if self.method is None else MethodRenderer(self.method)

    @property
    def code(self) -> frozenset[str]:
        """Names that the method's code mentions."""
        if self.method is None:
            return frozenset()
        return names_in(static_attribute(self.mapper, self.method))


def choice_mistakes(plain: Plain, channel: Channel) -> t.Iterator[tuple[str, str, str]]:
    """Yield (path, message, remedy) of every name in a channel's choice that does not fit its model."""
    for key, names in (("fields", channel.fields), ("exclude", channel.exclude), ("public", channel.public)):
        for at, name in enumerate(names or ()):
            mistake = _no_column(plain.mapper, name, is_sent=key == "fields")
            if mistake is not None:
                yield f"{channel.path}.{key}[{at}]", *mistake
    if plain.method is not None and (why := _no_method(plain.mapper, plain.method)):
        methods = [name for name in dir(plain.mapper.class_) if not _no_method(plain.mapper, name)]
        methods = [name for name in methods if not name.startswith("_")]
        remedy = did_you_mean(plain.method, methods, "Name a method that returns a dict.")
        yield f"{channel.path}.data", f'"{plain.method}" of {plain.mapper.class_.__name__} {why}.', remedy


def private_mistake(plain: Plain, channel: Channel | None) -> tuple[str, str] | None:
    """Return (message, remedy) if something private would be sent; a column that the catalogue names may be sent.

    :param channel: whose rows they are; None of an include.
    """
    if plain.method is not None or (channel is not None and channel.fields is not None):
        return None
    known = channel.public if channel is not None else ()
    sent = [
        key for key in private_columns(plain.mapper, plain.keys) if key in plain.keys and key not in known
    ]
    if not sent:
        return None
    columns = ", ".join(f'"{column}"' for column in sent)
    where = "" if channel is not None else " to the channel of that model"
    message = f"without a schema every column of {plain.mapper.class_.__name__} is sent, {columns} too."
    remedy = f'Name a schema that says what may leave the house, or add "exclude: [{", ".join(sent)}]"{where}'
    return message, f'{remedy}; "public" names what only sounds private.'


def _no_column(mapper: AnyMapper, name: str, *, is_sent: bool) -> tuple[str, str] | None:
    """Return why a name is not that of a column that can be sent, and what to do."""
    model, known = mapper.class_.__name__, mapper.column_attrs.keys()
    if name not in known:
        remedy = did_you_mean(name, known, f"It has: {', '.join(known)}.")
        return f'{model} has no column "{name}".', remedy
    if is_sent and name not in column_renderer(mapper).keys:
        remedy = "Leave it out, or name a schema that gives it a form."
        return f'"{name}" of {model} has no form in JSON.', remedy
    return None


_VARIOUS = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _no_method(mapper: AnyMapper, name: str) -> str:
    """Say why something is no method that can be called without arguments; empty if it is one."""
    found: t.Any = static_attribute(mapper, name)
    if isinstance(found, property):
        return "is a property, and no method"
    if not callable(found) or isinstance(found, type | staticmethod | classmethod):
        return "is no method of its rows"
    try:
        wanted = list(inspect.signature(found).parameters.values())[1:]
    except (TypeError, ValueError):
        return "is no method of its rows"
    needed = [each.name for each in wanted if each.default is each.empty and each.kind not in _VARIOUS]
    return f"cannot be called without {', '.join(needed)}" if needed else ""
