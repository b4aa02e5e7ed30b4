"""What may stand in one place of a catalogue and has parts: lists, mappings, and a choice between types."""

from __future__ import annotations

import dataclasses
import typing as t

from .names import did_you_mean, listed
from .validators import INVALID, Json, Text, Validator, read
from .yaml_reader import Node, Report, entries, items, line_of, type_of


@dataclasses.dataclass(frozen=True)
class ListOf(Validator):
    """A list whose items have one validator; no item may occur twice unless `repeats` is set."""

    item: Validator
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
class Either(Validator):
    """A value for one of several validators, chosen by its JSON type."""

    validators: tuple[Validator, ...]

    takes = frozenset()

    def __post_init__(self) -> None:
        by_type = {kind: validator for validator in self.validators for kind in validator.types}
        object.__setattr__(self, "_by_type", by_type)
        object.__setattr__(self, "_types", frozenset(by_type))

    _by_type: dict[str, Validator] = dataclasses.field(init=False, repr=False, compare=False)
    _types: frozenset[str] = dataclasses.field(init=False, repr=False, compare=False)

    @property
    def expected(self) -> str:  # type: ignore[override]  # made of its parts
        return listed(validator.expected for validator in self.validators)

    @property
    def types(self) -> frozenset[str]:
        return self._types

    def read(self, node: Node, path: str, report: Report) -> t.Any:
        return self._by_type[type_of(node)].read(node, path, report)

    def schema(self, defs: Json) -> Json:
        return {"anyOf": [validator.schema(defs) for validator in self.validators]}


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

    validator: Validator
    says: str
    """One sentence for the editor."""


@dataclasses.dataclass(frozen=True)
class Record(Validator):
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
                value[name] = read(known.validator, child, where, report)
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
                    node, path, f'has no "{name}".', f'Add "{name}": {self.keys[name].validator.expected}.'
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
        keys = {
            name: {"description": key.says} | key.validator.schema(defs) for name, key in self.keys.items()
        }
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
class MapOf(Validator):
    """A mapping from names to values that have one validator."""

    key: Text
    value: Validator
    expected: str
    least: int = 1
    special: dict[str, Validator] = dataclasses.field(default_factory=dict)
    """Keys with a validator of their own, which may also be of another type."""
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
            schema["properties"] = {name: validator.schema(defs) for name, validator in self.special.items()}
        return schema | ({"minProperties": self.least} if self.least else {})
