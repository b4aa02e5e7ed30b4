"""What may stand in one place of a catalogue: single values, and what every validator can do.

A validator does two things and is the only place for both: `read` takes a YAML node to a plain value, noting every
mistake with its line, and `schema` writes the JSON Schema that accepts and refuses the same. `containers` are made of
these, and `format` puts them together; the format is defined nowhere else.
"""

from __future__ import annotations

import abc
import dataclasses
import json
import re
import typing as t

from .names import did_you_mean, listed, suggestion
from .yaml_reader import Node, Report, plain, scalar, type_of

Json: t.TypeAlias = dict[str, t.Any]

_SAID = {
    "null": "is empty.",
    "string": "is text.",
    "number": "is a number.",
    "boolean": "is true or false.",
    "array": "is a list.",
    "object": "is a mapping.",
}


class Invalid:
    """What stands in the place of a value that was refused, so that no second mistake is made of it."""

    def __repr__(self) -> str:
        return "INVALID"


INVALID: t.Final = Invalid()


class Validator(abc.ABC):
    """What may stand in one place."""

    takes: t.ClassVar[frozenset[str]]
    """JSON types it accepts."""
    expected: str
    """For the remedy: `a list of names`."""

    @abc.abstractmethod
    def read(self, node: Node, path: str, report: Report) -> t.Any:
        """Return the value, or `INVALID` after noting why. The node's type is one of `takes`."""

    @abc.abstractmethod
    def schema(self, defs: Json) -> Json:
        """Return JSON Schema; parts used more than once go into `defs`."""

    @property
    def types(self) -> frozenset[str]:
        """JSON types it accepts; `Either` has those of its parts."""
        return self.takes


def read(validator: Validator, node: Node, path: str, report: Report) -> t.Any:
    """Return the value that a validator makes of a node, or `INVALID` after noting why."""
    kind = type_of(node)
    if kind in validator.types:
        return validator.read(node, path, report)
    said = _SAID.get(kind, f"has the tag {kind}.")
    report.refuse(node, path, said, f"Write {validator.expected}.")
    return INVALID


@dataclasses.dataclass(frozen=True)
class Text(Validator):
    """Text that is not empty, of a pattern if one is given."""

    expected: str = "some text"
    pattern: str = ""
    example: str = ""
    mend: t.Callable[[str], str | None] | None = None
    """What was probably meant by text that does not fit the pattern."""
    never: tuple[str, ...] = ()
    """Words that are taken."""
    most: int | None = None
    """Characters that it may have."""

    takes = frozenset({"string"})

    def __post_init__(self) -> None:
        object.__setattr__(self, "_match", re.compile(self.pattern or r"[\s\S]+").fullmatch)

    _match: t.Callable[[str], object] = dataclasses.field(init=False, repr=False, compare=False)

    def read(self, node: Node, path: str, report: Report) -> t.Any:
        value = str(node.value)
        return value if self.check(value, node, path, report) else INVALID

    def check(self, value: str, node: Node, path: str, report: Report) -> bool:
        """Tell whether text fits, and note it if not. Also used for the keys of a mapping."""
        if value in self.never:
            report.refuse(
                node, path, f'the name "{value}" is taken by Flask-Webhooks.', "Choose another one."
            )
            return False
        if self.most is not None and len(value) > self.most:
            said = f"has {len(value)} characters, and {self.most} is the most."
            report.refuse(node, path, said, "Write less.")
            return False
        if self._match(value):
            return True
        mended = self.mend(value) if self.mend is not None else None
        if not value:
            report.refuse(node, path, "is empty.", f"Write {self.expected}.")
        elif mended is not None and self._match(mended):
            report.refuse(node, path, f'"{value}" is not {self.expected}.', suggestion(mended))
        else:
            report.refuse(
                node, path, f'"{value}" is not {self.expected}.', f'Write it like "{self.example}".'
            )
        return False

    def schema(self, defs: Json) -> Json:
        schema: Json = {"type": "string", "minLength": 1}
        if self.pattern:
            schema = {"type": "string", "pattern": f"^(?:{self.pattern})$"}
        if self.never:
            schema["not"] = {"enum": list(self.never)}
        if self.most is not None:
            schema["maxLength"] = self.most
        return schema


@dataclasses.dataclass(frozen=True)
class Choice(Validator):
    """One of a few words."""

    words: tuple[str, ...]
    meant: tuple[tuple[str, str], ...] = ()
    """Words that people write for something else that fits."""

    takes = frozenset({"string"})

    @property
    def expected(self) -> str:  # type: ignore[override]  # a dataclass field elsewhere, derived here
        return listed(self.words)

    def read(self, node: Node, path: str, report: Report) -> t.Any:
        if node.value in self.words:
            return node.value
        remedy = did_you_mean(node.value, self.words, f"Write {self.expected}.")
        remedy = dict(self.meant).get(node.value, remedy)
        report.refuse(node, path, f'"{node.value}" is not a choice here.', remedy)
        return INVALID

    def schema(self, defs: Json) -> Json:
        return {"enum": list(self.words)}


@dataclasses.dataclass(frozen=True)
class Flag(Validator):
    """True or false."""

    expected: str = "true or false"
    takes = frozenset({"boolean"})

    def read(self, node: Node, path: str, report: Report) -> t.Any:
        return scalar(node)

    def schema(self, defs: Json) -> Json:
        return {"type": "boolean"}


@dataclasses.dataclass(frozen=True)
class Number(Validator):
    """A number from `least` to `most`."""

    expected: str
    least: float
    most: float
    takes = frozenset({"number"})

    def read(self, node: Node, path: str, report: Report) -> t.Any:
        value = t.cast(float, scalar(node))
        if self.least <= value <= self.most:
            return value
        report.refuse(node, path, f"{node.value} is not {self.expected}.", f"Write {self._range}.")
        return INVALID

    @property
    def _range(self) -> str:
        return f"{self.least}" if self.least == self.most else f"a number from {self.least} to {self.most}"

    def schema(self, defs: Json) -> Json:
        if self.least == self.most:
            return {"const": self.least}
        return {"type": "number", "minimum": self.least, "maximum": self.most}


@dataclasses.dataclass(frozen=True)
class Scalar(Validator):
    """Text, a number, true, false or null."""

    expected: str = "a single value"
    takes = frozenset({"string", "number", "boolean", "null"})

    def read(self, node: Node, path: str, report: Report) -> t.Any:
        return scalar(node)

    def schema(self, defs: Json) -> Json:
        return {"type": ["string", "number", "boolean", "null"]}


@dataclasses.dataclass(frozen=True)
class Nothing(Validator):
    """No value: a key that stands alone."""

    expected: str = "nothing"
    takes = frozenset({"null"})

    def read(self, node: Node, path: str, report: Report) -> t.Any:
        return None

    def schema(self, defs: Json) -> Json:
        return {"type": "null"}


@dataclasses.dataclass(frozen=True)
class Anything(Validator):
    """A mapping with whatever JSON can hold."""

    expected: str = "a mapping"
    most: int = 8 * 1024
    """Bytes of JSON that it may have."""
    takes = frozenset({"object"})

    def read(self, node: Node, path: str, report: Report) -> t.Any:
        value = plain(node, path, report)
        size = len(json.dumps(value, default=str))
        if size > self.most and not report.overfull:
            report.refuse(
                node, path, f"has {size} bytes of JSON, and {self.most} is the most.", "Write less."
            )
            return INVALID
        return value

    def schema(self, defs: Json) -> Json:
        return {"type": "object"}
