"""Rows by their keys, with what hangs on them: a few statements however many there are."""

from __future__ import annotations

import typing as t

import sqlalchemy as sa
from sqlalchemy import inspect, orm
from sqlalchemy.orm import Session, selectinload, undefer

from ..outbox import CHUNK

__all__ = ["CHUNK", "load", "rows_where"]

Path = tuple[str, ...]


def rows_where(columns: t.Sequence[t.Any], keys: t.Sequence[t.Any]) -> sa.ColumnElement[bool]:
    """The condition that a row has one of these primary keys."""
    if len(columns) == 1:
        return t.cast("sa.ColumnElement[bool]", columns[0].in_([key[0] for key in keys]))
    return sa.tuple_(*columns).in_([tuple(key) for key in keys])


def load(
    session: Session,
    model: type,
    keys: t.Sequence[t.Any],
    paths: t.Collection[Path] = (),
    *,
    columns: bool = False,
    again: bool = False,
) -> list[t.Any]:
    """Return the objects with these primary keys that are still there; what they lack of the paths is loaded.

    :param columns: deferred columns too.
    :param again: what is loaded already as well, as it stands in the database now.
    """
    mapper: orm.Mapper[t.Any] = inspect(model)
    attributes = [mapper.get_property_by_column(column).class_attribute for column in mapper.primary_key]
    options: list[t.Any] = [option(model, path) for path in sorted(paths) if path]
    if columns:
        options.append(undefer("*"))
    found: list[t.Any] = []
    for start in range(0, len(keys), CHUNK):
        some = keys[start : start + CHUNK]
        statement: t.Any = sa.select(model).where(rows_where(attributes, some)).options(*options)
        if again:
            statement = statement.execution_options(populate_existing=True)
        found.extend(session.scalars(statement).unique())
    return found


def option(model: type, path: Path) -> t.Any:
    """`selectinload` along a path of relationships."""
    made: t.Any = None
    cls: t.Any = model
    for name in path:
        attribute = getattr(cls, name)
        made = selectinload(attribute) if made is None else made.selectinload(attribute)
        cls = attribute.property.mapper.class_
    return made
