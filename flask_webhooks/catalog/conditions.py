"""What happens to a row, and what an event asks of it: kinds of changes, and conditions on columns.

An operator of conditions is one entry of `OPERATORS`, a field of `Condition`, and what `holds` makes of it. The
format of the catalogue, the checks against columns and the builder go by `OPERATORS`.
"""

from __future__ import annotations

import dataclasses
import enum
import typing as t

if t.TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Scalar: t.TypeAlias = str | int | float | bool | None
"""A value that a condition can be compared with."""


class Kind(enum.StrEnum):
    """What happened to a row."""

    CREATED = "created"
    UPDATED = "updated"
    DELETED = "deleted"
    MOVED_IN = "moved_in"
    """It became another owner's: what that owner sees of it."""
    MOVED_OUT = "moved_out"
    """The same as its owner of before sees it."""


class Operator(t.NamedTuple):
    """What a condition may ask of a column."""

    field: str
    """The attribute of `Condition` with its values."""
    help: str
    """For the editor of a catalogue."""


OPERATORS: t.Final[Mapping[str, Operator]] = {
    "from": Operator("leaves", "The column had this value (or one of these) before."),
    "to": Operator("enters", "The column has this value (or one of these) now."),
}
"""By the key of the catalogue. A value alone is short for `to`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Condition:
    """What one column must do: `{from: [sent, overdue], to: paid}`."""

    leaves: tuple[Scalar, ...] | None = None
    """`from`: the old value is one of these; `None`: not asked."""
    enters: tuple[Scalar, ...] | None = None
    """`to`: the new value is one of these; `None`: any other value."""

    @classmethod
    def of(cls, operands: Mapping[str, tuple[Scalar, ...]]) -> Condition:
        """Return the condition with these values, by operator.

        :raises KeyError: an operator that is not in `OPERATORS`: dropped, it would let the event fire on any change.
        """
        return cls(**{OPERATORS[name].field: values for name, values in operands.items()})

    def operands(self) -> Iterator[tuple[str, tuple[Scalar, ...]]]:
        """Yield each operator that is used, with its values."""
        for name, operator in OPERATORS.items():
            values = getattr(self, operator.field)
            if values is not None:
                yield name, values

    def holds(self, kind: Kind, old: object, new: object) -> bool:
        """Tell whether the change fulfils the condition.

        An update must *enter*: without `from`, an old value that already was one of `to` does not count. A
        created row is judged by its first value, a deleted one by its last; neither has a `from`.
        """
        if kind is not Kind.UPDATED:
            value = new if kind in ARRIVALS else old
            return self.leaves is None and self.enters is not None and _among(value, self.enters)
        if same(old, new):
            return False
        if self.enters is not None and not _among(new, self.enters):
            return False
        if self.leaves is not None:
            return _among(old, self.leaves)
        return self.enters is None or not _among(old, self.enters)

    def is_reached(self, value: object) -> bool:
        """Tell whether a row with this value has fulfilled the condition before, or was made so."""
        if self.enters is not None:
            return _among(value, self.enters)
        return self.leaves is not None and not _among(value, self.leaves)


ARRIVALS = frozenset({Kind.CREATED, Kind.MOVED_IN})
DEPARTURES = frozenset({Kind.DELETED, Kind.MOVED_OUT})


def _among(value: object, wanted: tuple[Scalar, ...]) -> bool:
    # YAML has no enums: a member is meant by its name or by its value.
    if isinstance(value, enum.Enum):
        return value.name in wanted or value.value in wanted
    return any(same(value, each) for each in wanted)


def same(old: t.Any, new: t.Any) -> bool:
    """Tell whether two values of a column are equal, also those whose `==` has no truth value.

    Arrays (numpy's, and so the vectors of pgvector) compare element by element, and broadcast: the shape counts too.
    What cannot be compared at all is not the same, as for SQLAlchemy.
    """
    try:
        equal = old == new
        if equal is True or equal is False:
            return equal
        if hasattr(equal, "all"):
            return getattr(old, "shape", None) == getattr(new, "shape", None) and bool(equal.all())
        return bool(equal)
    except (TypeError, ValueError):
        return False
