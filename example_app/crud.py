"""Finds and changes the records of one business, whatever their kind."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping

import sqlalchemy as sa
from marshmallow import ValidationError
from werkzeug.exceptions import NotFound

from .channels import Resource
from .models import Tagged, db

Values = Mapping[str, t.Any]


def find(resource: Resource, record_id: int, business_id: int, *, lock: bool = False) -> t.Any:
    """Return a record of this business.

    :param lock: keep others from changing it until the end of the transaction.
    :raises NotFound: also for another business's record: whether that exists is nobody's business.
    """
    query = sa.select(resource.model).where(resource.model.id == record_id, resource.owner == business_id)
    record = db.session.scalar(query.with_for_update() if lock else query)
    if record is None:
        raise NotFound(f"There is no record {record_id} in {resource.name}.")
    return record


def write(record: Tagged, values: Values, business_id: int) -> None:
    """Give a new or existing record its loaded values, lines included.

    :raises ValidationError: if it would refer to a record that the business does not have.
    :raises Inconsistent: if its fields contradict each other.
    """
    with db.session.no_autoflush:
        _check_references(type(record), values, business_id)
        for name, value in values.items():
            setattr(record, name, _children(type(record), name, value))
        record.settle()


def _children(model: type[t.Any], name: str, value: t.Any) -> t.Any:
    relationship = sa.inspect(model).relationships.get(name)
    if relationship is None:
        return value
    return [relationship.mapper.class_(**line) for line in value]


def _check_references(model: type[t.Any], values: Values, business_id: int) -> None:
    if problems := _missing_references(model, values, business_id):
        raise ValidationError(problems)


def _missing_references(model: type[t.Any], values: Values, business_id: int) -> dict[str, t.Any]:
    """Return messages by field, and by index and field for lines, as marshmallow does."""
    mapper = sa.inspect(model)
    problems: dict[str, t.Any] = {}
    for name, value in values.items():
        if name in mapper.relationships:
            line = mapper.relationships[name].mapper.class_
            lines = {i: _missing_references(line, given, business_id) for i, given in enumerate(value)}
            if found := {i: problem for i, problem in lines.items() if problem}:
                problems[name] = found
        elif value is not None and not _refers_within(mapper.columns[name], value, business_id):
            problems[name] = ["There is no such record."]
    return problems


def _refers_within(column: sa.Column[t.Any], value: t.Any, business_id: int) -> bool:
    """Tell whether a value is no reference at all, or one to a record of this business."""
    for key in column.foreign_keys:
        target = key.column.table
        query = sa.select(sa.exists().where(target.c.id == value, target.c.business_id == business_id))
        return bool(db.session.scalar(query))
    return True
