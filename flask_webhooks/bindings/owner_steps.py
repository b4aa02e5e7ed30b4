"""Steps of a path to an owner: relationships, and foreign keys without one (`project_id.studio_id`).

The law of this room: a foreign key leads as a relationship to one would, and nothing is added to the host's classes for
it. Inside, such a step is called by its column and `SIGN`, so that a path of names says all.
"""

from __future__ import annotations

import dataclasses
import functools
import typing as t
import weakref

import sqlalchemy as sa
from sqlalchemy import orm
from sqlalchemy.orm import Session, object_session

from .paths import AnyMapper, PathError, ResolvedPath, follow, readable

__all__ = ["SIGN", "KeyLink", "Relation", "at_hand", "keep", "link_of", "linked", "owner_path", "rows_led_to"]

SIGN = "->"
REACHED = "flask_webhooks.led"
"""In `state.info`: what foreign keys of a deleted object led to. In `session.info`: rows by other than primary keys."""
_CHUNK = 500


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class KeyLink:
    """A foreign key that leads to a row; it has what is read of a many-to-one relationship."""

    key: str
    """The step: `project_id->`."""
    column: str
    """Attribute here."""
    remote: str
    """Attribute there."""
    parent: AnyMapper
    mapper: AnyMapper
    """Of the class that it leads to."""
    local_columns: frozenset[sa.ColumnElement[t.Any]]
    local_remote_pairs: tuple[tuple[sa.ColumnElement[t.Any], sa.ColumnElement[t.Any]], ...]

    direction: t.ClassVar = orm.RelationshipDirection.MANYTOONE
    uselist: t.ClassVar = False

    @property
    def is_by_key(self) -> bool:
        """Whether it names the primary key there, by which a session knows its objects."""
        keys = self.mapper.primary_key
        return len(keys) == 1 and self.mapper.get_property_by_column(keys[0]).key == self.remote


Relation: t.TypeAlias = "orm.RelationshipProperty[t.Any] | KeyLink"


def link_of(mapper: AnyMapper, name: str) -> Relation | None:
    """Return the relationship or the foreign key that a step of a path is; None of anything else."""
    if name.endswith(SIGN):
        return _key_link(mapper, name.removesuffix(SIGN))
    found: Relation | None = mapper.relationships.get(name)
    return found


@functools.lru_cache(maxsize=1024)
def _key_link(mapper: AnyMapper, name: str) -> KeyLink:
    """Find what a column refers to.

    :raises PathError: it refers to nothing, or not by itself, or to a table that no class is mapped to.
    """
    column = mapper.column_attrs[name].columns[0]
    keys = list(column.foreign_keys) if isinstance(column, sa.Column) else []
    model = mapper.class_.__name__
    if not keys:
        raise PathError(f'"{name}" is a column of {model}, nothing can follow it.', f'Stop at "{name}".')
    remedy = "Add a relationship to the model, and name that."
    constraint = keys[0].constraint
    if len(keys) > 1 or (constraint is not None and len(constraint.elements) > 1):
        raise PathError(f'"{name}" of {model} is no foreign key by itself.', remedy)
    try:
        target = keys[0].column
    except sa.exc.SQLAlchemyError as error:
        raise PathError(
            f'"{name}" of {model} refers to what SQLAlchemy cannot find: {error}.', remedy
        ) from error
    found = [each for each in mapper.registry.mappers if _heads(each, target.table)]
    if len(found) != 1:
        classes = "no class is" if not found else f"{len(found)} classes are"
        raise PathError(
            f'"{name}" of {model} refers to {target.table.name}, which {classes} mapped to.', remedy
        )
    there = found[0].get_property_by_column(target).key
    return KeyLink(f"{name}{SIGN}", name, there, mapper, found[0], frozenset({column}), ((column, target),))


def _heads(mapper: AnyMapper, table: object) -> bool:
    """Whether it is the class of a table; one that inherits within the same table is not."""
    return mapper.local_table is table and (
        mapper.inherits is None or mapper.inherits.local_table is not table
    )


def owner_path(mapper: AnyMapper, path: t.Sequence[str]) -> tuple[tuple[str, ...], ResolvedPath]:
    """Return the steps of a path to an owner, and where its last part leads.

    :raises PathError: it cannot be followed.
    """
    steps: list[str] = []
    here, many = mapper, False
    for at, name in enumerate(path):
        if name in here.relationships:
            relationship = here.relationships[name]
            readable(relationship)
            many = many or bool(relationship.uselist)
            key, here = relationship.key, relationship.mapper
        elif name in here.column_attrs and at + 1 < len(path):
            link = _key_link(here, name)
            key, here = link.key, link.mapper
        else:
            break
        steps.append(key)
    rest = path[len(steps) :]
    resolved = follow(here, rest)
    return (*steps, *rest), dataclasses.replace(resolved, many=many or resolved.many)


# ---- rows ------------------------------------------------------------------------------------------------


def linked(obj: t.Any, link: KeyLink) -> t.Any:
    """Return the row that a foreign key leads to, or None: from the session, else by one statement."""
    found = at_hand(obj, link)
    wanted = getattr(obj, link.column, None)
    session = object_session(obj)
    if found is not None or wanted is None:
        return found
    found = rows_led_to(session, link, [wanted]).get(wanted) if session is not None else None
    return _kept(obj, link) if found is None else found


def at_hand(obj: t.Any, link: KeyLink) -> t.Any:
    """Return the same if no statement is needed for it."""
    wanted = obj.__dict__.get(link.column)
    session = object_session(obj)
    if wanted is None or session is None:
        return None
    found = _kept(obj, link) if obj._sa_instance_state._deleted else None
    return _in_session(session, link, wanted) if found is None else found


def keep(obj: t.Any, link: KeyLink, row: t.Any) -> None:
    """Remember what a foreign key leads to, for an object that is about to be deleted: that may go too."""
    obj._sa_instance_state.info.setdefault(REACHED, {})[link.key] = row


def _kept(obj: t.Any, link: KeyLink) -> t.Any:
    kept = obj._sa_instance_state.info.get(REACHED, {}).get(link.key)
    is_meant = kept is not None and kept.__dict__.get(link.remote) == obj.__dict__.get(link.column)
    return kept if is_meant else None


def _in_session(session: Session, link: KeyLink, value: t.Any) -> t.Any:
    if link.is_by_key:
        return session.identity_map.get(orm.util.identity_key(link.mapper.class_, value))
    row = session.info.get(REACHED, {}).get((session.hash_key, link, value))
    is_there = row is not None and object_session(row) is session and row.__dict__.get(link.remote) == value
    return row if is_there else None


def rows_led_to(session: Session, link: KeyLink, values: t.Iterable[t.Any]) -> dict[t.Any, t.Any]:
    """Return the rows that a foreign key leads to by these values: one statement for all that are not loaded."""
    wanted = dict.fromkeys(each for each in values if each is not None)
    found = {each: row for each in wanted if (row := _in_session(session, link, each)) is not None}
    missing = [each for each in wanted if each not in found]
    remote: t.Any = getattr(link.mapper.class_, link.remote)
    for start in range(0, len(missing), _CHUNK):
        statement = sa.select(link.mapper.class_).where(remote.in_(missing[start : start + _CHUNK]))
        with session.no_autoflush:
            rows = session.scalars(statement).unique().all()
        found |= {getattr(row, link.remote): row for row in rows}
    if missing and not link.is_by_key:
        known = session.info.setdefault(REACHED, weakref.WeakValueDictionary())
        known.update({(session.hash_key, link, each): row for each, row in found.items()})
    return found
