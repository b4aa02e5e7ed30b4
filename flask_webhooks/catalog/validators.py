"""The few shapes that the catalogue format is made of.

A shape does two things and is the only place for both: `read` takes a YAML node to a plain value, noting every
mistake with its line, and `schema` writes the JSON Schema that accepts and refuses the same. `format` puts
them together; nothing about the format is said anywhere else.
"""

from __future__ import annotations

import abc
import dataclasses
import json
import re
import typing as t

from .names import did_you_mean, listed
from .yaml_reader import Node, Report, entries, items, line_of, plain, scalar, type_of

Json: t.TypeAlias = dict[str, t.Any]


class Invalid:
    """What stands in the place of a value that was refused, so that no second mistake is made of it."""

    def __repr__(self) -> str:
        return "INVALID"


INVALID: t.Final = Invalid()

_SAID = {
    "null": "is empty.",
    "string": "is text.",
    "number": "is a number.",
    "boolean": "is true or false.",
    "array": "is a list.",
    "object": "is a mapping.",
}


class Shape(abc.ABC):
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


def read(shape: Shape, node: Node, path: str, report: Report) -> t.Any:
    """Return the value of a node in a shape, or `INVALID` after noting why."""
    kind = type_of(node)
    if kind in shape.types:
        return shape.read(node, path, report)
    said = _SAID.get(kind, f"has the tag {kind}.")
    report.refuse(node, path, said, f"Write {shape.expected}.")
    return INVALID


@dataclasses.dataclass(frozen=True)
class Text(Shape):
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
            report.refuse(node, path, f'"{value}" is not {self.expected}.', f'Did you mean "{mended}"?')
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
class Choice(Shape):
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
class Flag(Shape):
    """True or false."""

    expected: str = "true or false"
    takes = frozenset({"boolean"})

    def read(self, node: Node, path: str, report: Report) -> t.Any:
        return scalar(node)

    def schema(self, defs: Json) -> Json:
        return {"type": "boolean"}


@dataclasses.dataclass(frozen=True)
class Number(Shape):
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
class Scalar(Shape):
    """Text, a number, true, false or null."""

    expected: str = "a single value"
    takes = frozenset({"string", "number", "boolean", "null"})

    def read(self, node: Node, path: str, report: Report) -> t.Any:
        return scalar(node)

    def schema(self, defs: Json) -> Json:
        return {"type": ["string", "number", "boolean", "null"]}


@dataclasses.dataclass(frozen=True)
class Nothing(Shape):
    """No value: a key that stands alone."""

    expected: str = "nothing"
    takes = frozenset({"null"})

    def read(self, node: Node, path: str, report: Report) -> t.Any:
        return None

    def schema(self, defs: Json) -> Json:
        return {"type": "null"}


@dataclasses.dataclass(frozen=True)
class Anything(Shape):
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


@dataclasses.dataclass(frozen=True)
class ListOf(Shape):
    """A list of one shape, with no item twice unless `repeats` says so."""

    item: Shape
    expected: str
    least: int = 1
    most: int = 0
    """0: no limit."""
    repeats: bool = False
    takes = frozenset({"array"})

    def read(self, node: Node, path: str, report: Report) -> t.Any:
        nodes = items(node)
        if len(nodes) < self.least:
            report.refuse(node, path, "is an empty list.", f"Write {self.expected}, or leave the key out.")
            return INVALID
        if self.most and len(nodes) > self.most:
            report.refuse(node, path, f"has {len(nodes)} items.", f"Write at most {self.most}.")
            return INVALID
        values: list[t.Any] = []
        for at, child in enumerate(nodes):
            where = f"{path}[{at}]"
            value = read(self.item, child, where, report)
            report.positions[where] = (report.file, line_of(child))
            if not self.repeats and value is not INVALID and any(_same(value, other) for other in values):
                report.refuse(
                    child, where, f'"{child.value}" stands twice in the list.', "Remove one of the two."
                )
            values.append(value)
        return values

    def schema(self, defs: Json) -> Json:
        schema: Json = {"type": "array", "items": self.item.schema(defs)}
        if not self.repeats:
            schema["uniqueItems"] = True
        if self.most:
            schema["maxItems"] = self.most
        return schema | ({"minItems": self.least} if self.least else {})


def _same(one: object, other: object) -> bool:
    # True == 1 in Python, but not in JSON.
    return one == other and isinstance(one, bool) is isinstance(other, bool)


@dataclasses.dataclass(frozen=True)
class Either(Shape):
    """One of several shapes, told apart by their JSON types."""

    shapes: tuple[Shape, ...]

    takes = frozenset()

    def __post_init__(self) -> None:
        by_type = {kind: shape for shape in self.shapes for kind in shape.types}
        object.__setattr__(self, "_by_type", by_type)
        object.__setattr__(self, "_types", frozenset(by_type))

    _by_type: dict[str, Shape] = dataclasses.field(init=False, repr=False, compare=False)
    _types: frozenset[str] = dataclasses.field(init=False, repr=False, compare=False)

    @property
    def expected(self) -> str:  # type: ignore[override]  # made of its parts
        return listed(shape.expected for shape in self.shapes)

    @property
    def types(self) -> frozenset[str]:
        return self._types

    def read(self, node: Node, path: str, report: Report) -> t.Any:
        return self._by_type[type_of(node)].read(node, path, report)

    def schema(self, defs: Json) -> Json:
        return {"anyOf": [shape.schema(defs) for shape in self.shapes]}


class Rule(t.Protocol):
    """What must hold between the keys of one mapping."""

    @property
    def schema(self) -> Json:
        """The same in JSON Schema."""

    def check(self, value: Json, path: str, report: Report) -> None:
        """Note what is wrong. Refused values are `INVALID`; a key that is absent is not in `value`."""


@dataclasses.dataclass(frozen=True)
class Key:
    """One key of a record."""

    shape: Shape
    says: str
    """One sentence for the editor."""


@dataclasses.dataclass(frozen=True)
class Record(Shape):
    """A mapping with known keys."""

    name: str
    """Its name among the `$defs`."""
    expected: str
    keys: dict[str, Key]
    required: tuple[str, ...] = ()
    needs: dict[str, str] = dataclasses.field(default_factory=dict)
    """Key to the other key that it makes no sense without."""
    rules: tuple[Rule, ...] = ()
    private: bool = False
    """Whether `x-…` is allowed: a place for YAML anchors and the team's own notes."""
    filled: bool = False
    """Whether at least one key must be there."""

    takes = frozenset({"object"})

    def read(self, node: Node, path: str, report: Report) -> t.Any:
        value: Json = {}
        for name, key, child in entries(node, path, report):
            where = f"{path}.{name}" if path else name
            known = self.keys.get(name)
            if known is not None:
                report.positions[where] = (report.file, line_of(key))
                value[name] = read(known.shape, child, where, report)
            elif not (self.private and name.startswith("x-")):
                otherwise = f"Known here: {', '.join(self.keys)}."
                remedy = did_you_mean(name, self.keys, otherwise)
                report.refuse(key, path, f'unknown key "{name}".', remedy)
        self._check(value, node, path, report)
        return value

    def _check(self, value: Json, node: Node, path: str, report: Report) -> None:
        for name in self.required:
            if name not in value:
                report.refuse(
                    node, path, f'has no "{name}".', f'Add "{name}": {self.keys[name].shape.expected}.'
                )
        for name, other in self.needs.items():
            if name in value and other not in value:
                report.refuse(
                    node, f"{path}.{name}", f'needs a "{other}".', f'Add "{other}" or remove "{name}".'
                )
        if self.filled and not node.value:
            report.refuse(node, path, "is an empty mapping.", f"Write {self.expected}.")
        for rule in self.rules:
            rule.check(value, path, report)

    def schema(self, defs: Json) -> Json:
        if self.name not in defs:
            defs[self.name] = {}  # holds the place, for a record inside itself
            defs[self.name].update(self._schema(defs))
        return {"$ref": f"#/$defs/{self.name}"}

    def _schema(self, defs: Json) -> Json:
        keys = {name: {"description": key.says} | key.shape.schema(defs) for name, key in self.keys.items()}
        schema: Json = {"type": "object", "properties": keys, "additionalProperties": False}
        if self.private:
            schema["patternProperties"] = {"^x-": True}
        if self.required:
            schema["required"] = list(self.required)
        if self.needs:
            schema["dependentRequired"] = {name: [other] for name, other in self.needs.items()}
        if self.filled:
            schema["minProperties"] = 1
        if self.rules:
            schema["allOf"] = [rule.schema for rule in self.rules]
        return schema


@dataclasses.dataclass(frozen=True)
class MapOf(Shape):
    """A mapping from names to one shape."""

    key: Text
    value: Shape
    expected: str
    least: int = 1
    special: dict[str, Shape] = dataclasses.field(default_factory=dict)
    """Keys with a shape of their own, which may also be of another type."""
    takes = frozenset({"object"})

    def read(self, node: Node, path: str, report: Report) -> t.Any:
        values: Json = {}
        for name, key, child in entries(node, path, report):
            where = f"{path}.{name}"
            report.positions[where] = (report.file, line_of(key))
            value = read(self.special.get(name, self.value), child, where, report)
            values[name] = value if self.key.check(name, key, where, report) else INVALID
        if len(node.value) < self.least:
            report.refuse(node, path, "is an empty mapping.", f"Write {self.expected}.")
        return values

    def schema(self, defs: Json) -> Json:
        schema: Json = {
            "type": "object",
            "propertyNames": self.key.schema(defs),
            "additionalProperties": self.value.schema(defs),
        }
        if self.special:
            schema["properties"] = {name: shape.schema(defs) for name, shape in self.special.items()}
        return schema | ({"minProperties": self.least} if self.least else {})
