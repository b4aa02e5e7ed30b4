"""YAML text to nodes that remember their line. The one place that touches PyYAML.

Scalars are read as YAML 1.2 and JSON read them, because that is what editors do and what people mean: `on`,
`yes` and `no` are words, a date is text, and there is no infinity. The text is composed into nodes and no
further; the validators make values from them, so nothing is walked twice.
"""

from __future__ import annotations

import dataclasses
import math
import re
import typing as t

import yaml

from ..errors import Problem

if t.TYPE_CHECKING:
    from collections.abc import Iterator

    _Base = yaml.SafeLoader
else:
    # libyaml is about eight times as fast; wheels have it, some source builds do not.
    _Base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Node: t.TypeAlias = yaml.nodes.Node

_TAG = "tag:yaml.org,2002:"
_MERGE = _TAG + "merge"
_DEPTH = 40
_NODES = 50_000
_NESTED = 500
_INDENTED = re.compile(rf"^[ ?:-]{{{_NESTED}}}", re.MULTILINE)
_INTEGER = re.compile(r"[-+]?[0-9]{1,300}\Z")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")


class _Loader(_Base):
    """Resolves plain scalars by the YAML 1.2 core schema, plus the merge key."""

    # types-PyYAML has it as an instance variable; PyYAML itself as one of the class.
    yaml_implicit_resolvers = {}


def _resolve(kind: str, pattern: str, first: str) -> None:
    for letter in first:
        _Loader.yaml_implicit_resolvers.setdefault(letter, []).append((_TAG + kind, re.compile(pattern)))


_resolve("bool", r"(true|True|TRUE|false|False|FALSE)\Z", "tTfF")
_resolve("int", r"[-+]?[0-9]{1,300}\Z", "-+0123456789")
_resolve("float", r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z", "-+.0123456789")
_resolve("merge", r"<<\Z", "<")
for _first in ("~", "n", "N", ""):
    _Loader.yaml_implicit_resolvers[_first] = [(_TAG + "null", re.compile(r"(~|null|Null|NULL|)\Z"))]

_TYPES = {
    _TAG + "str": "string",
    _TAG + "bool": "boolean",
    _TAG + "int": "number",
    _TAG + "float": "number",
    _TAG + "null": "null",
    _MERGE: "string",
    _TAG + "seq": "array",
    _TAG + "map": "object",
}


@dataclasses.dataclass(slots=True)
class Report:
    """What was found in one file: mistakes, and where everything stands."""

    file: str
    problems: list[Problem] = dataclasses.field(default_factory=list)
    positions: dict[str, tuple[str, int]] = dataclasses.field(default_factory=dict)
    walked: int = 0
    """Nodes that `plain` has read."""
    overfull: bool = False

    def refuse(self, node: Node, path: str, message: str, remedy: str = "") -> None:
        """Note a mistake at the line of `node`."""
        self.problems.append(Problem(self.file, line_of(node), path or "(document)", message, remedy))

    def refuse_at(self, path: str, message: str, remedy: str = "") -> None:
        """Note a mistake at a path that was read before, or at the nearest one around it."""
        around = path
        while around and around not in self.positions:
            around = around[: max(around.rfind("."), around.rfind("["), 0)]
        line = self.positions.get(around, ("", 1))[1]
        self.problems.append(Problem(self.file, line, path or "(document)", message, remedy))


def line_of(node: Node | yaml.Event) -> int:
    """Return the line of a node or event, from 1."""
    return int(t.cast("yaml.Mark", node.start_mark).line) + 1


def compose(text: str, report: Report) -> Node | None:
    """Return the root node; `None` (with a problem noted) if the text is no YAML or has no document."""
    try:
        if (line := _too_deep(text)) is not None:
            remedy = "Look for brackets that are not closed."
            report.problems.append(Problem(report.file, line, "(document)", "is nested too deeply.", remedy))
            return None
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = " ".join(part for part in (error.context, error.problem) if part)
        line = mark.line + 1 if mark is not None else 1
        hint = _syntax_hint(what, text.splitlines()[max(line - 2, 0) : line])
        report.problems.append(Problem(report.file, line, "(document)", f"is no YAML: {what}.", hint))
        return None
    except yaml.reader.ReaderError:
        report.problems.append(_unreadable(text, report.file))
        return None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        what = " ".join(str(error).split())
        report.problems.append(Problem(report.file, 1, "(document)", f"is no YAML: {what}", ""))
        return None
    if root is None:
        remedy = 'Begin with "version: 1" and "channels:".'
        report.problems.append(Problem(report.file, 1, "(document)", "is empty.", remedy))
    return root


def _too_deep(text: str) -> int | None:
    """Return the line where it gets too deep for PyYAML, which composes by recursion and, with libyaml, would end
    the whole process. For nearly every text a quick look shows that it cannot be nested deeply."""
    if text.count("[") + text.count("{") < _NESTED and _INDENTED.search(text) is None:
        return None
    depth = 0
    try:
        for event in yaml.parse(text, Loader=_Loader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _NESTED:
                return line_of(event)
    except yaml.MarkedYAMLError as error:  # a limit of libyaml's own (0.2.6: 1,000), met while it looks ahead
        mark = error.problem_mark
        if mark is None or not _is_deep(text[: mark.index]):
            raise
        return int(mark.line) + 1
    return None


def _is_deep(text: str) -> bool:
    opened = sum(text.count(each) for each in "[{") - sum(text.count(each) for each in "]}")
    return opened >= _NESTED or _INDENTED.search(text) is not None


def _unreadable(text: str, file: str) -> Problem:
    found = yaml.reader.Reader.NON_PRINTABLE.search(text)
    at = found.start() if found is not None else 0
    what = f"has the character U+{ord(text[at]):04X}, which YAML does not allow."
    return Problem(file, text.count("\n", 0, at) + 1, "(document)", what, "Remove it.")


def _syntax_hint(what: str, lines: list[str]) -> str:
    """Say what to look for.

    :param lines: the line with the mistake, and the one before it.
    """
    if any("\t" in line[: len(line) - len(line.lstrip())] for line in lines):
        return "Indent with spaces; YAML allows no tabs."
    if "single document" in what:
        return "Keep one document in a file; name several files in WEBHOOKS_CATALOG."
    if "alias" in what:
        return "An anchor (&name) must stand before its use (*name); quote text that begins with *."
    if "flow" in what:
        return "A bracket or brace is not closed, or a comma is missing, here or in the line before."
    if "block" in what or "mapping values" in what:
        return "Look at the indentation here and in the line before; quote text that contains ': '."
    return "Look at this line and the one before; quote text that begins with a special character."


def type_of(node: Node) -> str:
    """Return the JSON type of a node: `string`, `number`, `boolean`, `null`, `array`, `object`, or its tag."""
    kind = _TYPES.get(node.tag)
    if kind is None:
        return str(node.tag)
    if isinstance(node, yaml.SequenceNode) is not (kind == "array"):
        return str(node.tag)
    if isinstance(node, yaml.MappingNode) is not (kind == "object"):
        return str(node.tag)
    if kind == "number" and not _is_number(node.value):
        return "string"
    return kind


def _is_number(text: str) -> bool:
    return _NUMBER.match(text) is not None and math.isfinite(float(text))


def scalar(node: Node) -> str | int | float | bool | None:
    """Return the value of a scalar node as JSON would have it."""
    kind = type_of(node)
    if kind == "number":
        return int(node.value) if _INTEGER.match(node.value) else float(node.value)
    if kind == "boolean":
        return str(node.value).lower() == "true"
    return None if kind == "null" else str(node.value)


def items(node: Node) -> list[Node]:
    """Return the nodes of a sequence."""
    return t.cast("list[Node]", node.value)


def entries(node: Node, path: str, report: Report) -> Iterator[tuple[str, Node, Node]]:
    """Yield (key, key node, value node) of a mapping; keys are always text.

    A key written twice and a key that is no scalar are refused. `<<: *anchor` is merged as YAML 1.1 has it:
    what is written in the mapping itself wins.
    """
    seen: dict[str, Node] = {}
    merged: list[Node] = []
    for key, value in node.value:
        if key.tag == _MERGE:
            merged.append(value)
        elif not isinstance(key, yaml.ScalarNode):
            report.refuse(key, path, "a key is a list or a mapping.", "Write a plain word as key.")
        elif key.value in seen:
            first = line_of(seen[key.value])
            where = f"{path}.{key.value}" if path else key.value
            report.refuse(key, where, f"is written twice, first in line {first}.", "Remove one of the two.")
        else:
            seen[key.value] = key
            yield key.value, key, value
    walked: set[int] = set()
    for other in merged:
        yield from _merged(other, seen, walked, path, report)


def _merged(
    other: Node, seen: dict[str, Node], walked: set[int], path: str, report: Report
) -> Iterator[tuple[str, Node, Node]]:
    if id(other) in walked:  # a circle, or merged before: there is nothing new in it
        return
    walked.add(id(other))
    if isinstance(other, yaml.SequenceNode):
        for each in items(other):
            yield from _merged(each, seen, walked, path, report)
        return
    if not isinstance(other, yaml.MappingNode):
        report.refuse(
            other, path, '"<<" merges something that is no mapping.', "Write <<: *name of a mapping."
        )
        return
    for key, value in other.value:
        if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE and key.value not in seen:
            seen[key.value] = key
            yield key.value, key, value
    for value in (value for key, value in other.value if key.tag == _MERGE):
        yield from _merged(value, seen, walked, path, report)


def plain(node: Node, path: str, report: Report) -> t.Any:
    """Return a node and all below it as JSON values.

    At most 40 deep and 50,000 nodes a file: that ends a mapping that contains itself through an anchor, and
    anchors that multiply each other.
    """
    was_overfull = report.overfull
    value = _plain(node, path, report, 0)
    if report.overfull and not was_overfull:
        report.refuse(node, path, "is too deep or too large.", "Make it flatter, or shorter.")
    return value


def _plain(node: Node, path: str, report: Report, depth: int) -> t.Any:
    report.walked += 1
    if depth > _DEPTH or report.walked > _NODES:
        report.overfull, report.walked = True, _NODES
        return None
    kind = type_of(node)
    if kind == "object":
        return {
            key: _plain(value, f"{path}.{key}", report, depth + 1)
            for key, _, value in entries(node, path, report)
        }
    if kind == "array":
        return [_plain(item, f"{path}[{at}]", report, depth + 1) for at, item in enumerate(items(node))]
    if kind.startswith(("tag:", "!")):
        report.refuse(node, path, f"has the tag {kind}.", "Leave the tag out; only plain YAML is read.")
        return None
    return scalar(node)
