"""Reads an author's YAML file into plain values that know their lines.

The dialect is YAML 1.2's core schema, so `NO` is the text "NO" and not false, and `1:30` is text and not 90
(https://yaml.org/spec/1.2.2/#103-core-schema). Duplicate keys, anchors and several documents in a file are refused:
each of them can hide what a rule really says.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

MAX_FILE_BYTES = 4 * 1024 * 1024
"""The largest file that is read: some 30 000 rules. What is larger is data, not rules."""

MAX_DEPTH = 32

Location = tuple[str | int, ...]


class Unread(Enum):
    """Stands in a file's values for one that could not be read; the problem has been noted."""

    UNREAD = "unread"

    def __deepcopy__(self, memo: object) -> Unread:
        return self


UNREAD = Unread.UNREAD


class _Loader(yaml.CSafeLoader):
    """PyYAML's C parser with the scalars of YAML 1.2's core schema."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789"),
    (
        "float",
        r"^(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$",
        "-+.0123456789",
    ),
    ("null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), list(_first))


@dataclass(slots=True)
class Source:
    """One file's values. `data` is None where the file could not be read; `problems` are (line, message, hint), and
    `unread` the places whose values could not be read."""

    file: str
    data: Any = None
    lines: dict[Location, int] = field(default_factory=dict)
    problems: list[tuple[int, str, str]] = field(default_factory=list)
    unread: set[Location] = field(default_factory=set)

    def line(self, path: Location) -> int:
        """The line of the value at `path`, or of the nearest value around it that has one."""
        for size in range(len(path), -1, -1):
            if path[:size] in self.lines:
                return self.lines[path[:size]]
        return 1


def read_source(path: Path, file: str) -> Source:
    """Read one YAML file. Every problem found is in the result; nothing is raised for an author's mistake."""
    source = Source(file)
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            source.problems.append(
                (0, f"the file is larger than {MAX_FILE_BYTES} bytes", "split it, or move long lists elsewhere")
            )
            return source
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        source.problems.append((line, "the file is not UTF-8 text", "save it with the encoding UTF-8"))
        return source
    except OSError as error:
        source.problems.append((0, f"the file cannot be read: {error.strerror}", "check its name and permissions"))
        return source
    _parse(text, source)
    return source


def _parse(text: str, source: Source) -> None:
    loader: Any = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            source.problems.append((1, "the file is empty", "write its keys, or delete the file"))
            return
        if "&" in text:
            _note_anchors(text, source)
        source.data = _Walk(source, loader).value(node, (), 0)
        if source.data is UNREAD:
            source.data = None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "not valid YAML"
        source.problems.append((mark.line + 1 if mark else 1, *_words(problem, text, mark)))
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        source.problems.append((line, "the file holds a character that YAML forbids", "remove the control character"))
    finally:
        if loader is not None:
            loader.dispose()


def _note_anchors(text: str, source: Source) -> None:
    for event in yaml.parse(text, Loader=_Loader):
        anchor = getattr(event, "anchor", None)
        if anchor is not None:
            kind, sign = ("alias", "*") if isinstance(event, yaml.AliasEvent) else ("anchor", "&")
            hint = "write the value out" if kind == "alias" else "delete it; write the value out where it is used"
            line = event.start_mark.line + 1 if event.start_mark else 1
            source.problems.append((line, f"an {kind} ({sign}{anchor}) is used", hint))


def _words(problem: str, text: str, mark: Any) -> tuple[str, str]:
    lines = text.splitlines()
    if mark is not None and mark.line < len(lines) and "\t" in lines[mark.line]:
        return "a tab stands where YAML wants spaces", "indent with spaces"
    if "expected a single document" in problem or "but found another document" in problem:
        return "the file holds more than one YAML document", "keep one document, without a second '---'"
    if "undefined alias" in problem:
        return "an alias (*name) is used", "write the value out"
    return f"not valid YAML: {problem}", "check the indentation, the quotes and the brackets on this line and above"


class _Walk:
    """Turns nodes into values and notes the line of each."""

    def __init__(self, source: Source, loader: Any) -> None:
        self._source, self._loader = source, loader
        self._seen: set[int] = set()

    def value(self, node: yaml.Node, path: Location, depth: int) -> Any:
        line = node.start_mark.line + 1
        self._source.lines.setdefault(path, line)
        if id(node) in self._seen:
            # An alias, noted already; following it could grow without bound.
            return self._unread(path)
        self._seen.add(id(node))
        if depth > MAX_DEPTH:
            self._problem(line, f"nested deeper than {MAX_DEPTH} levels", "flatten it")
            return self._unread(path)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*path, index), depth + 1) for index, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        return self._scalar(node, path)

    def _unread(self, path: Location) -> Unread:
        self._source.unread.add(path)
        return UNREAD

    def _mapping(self, node: yaml.MappingNode, path: Location, depth: int) -> dict[Any, Any]:
        values: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._problem(line, "a key is a list or a mapping", "use text as the key")
                continue
            if key_node.value == "<<":
                self._problem(line, "a merge key (<<) is used", "write the keys out")
                self._unread((*path, "<<"))
                continue
            key = self._scalar(key_node, (*path, key_node.value))
            if key in values or any(str(key) == str(other) for other in values if type(other) is not type(key)):
                first = self._source.lines[(*path, next(other for other in values if str(other) == str(key)))]
                self._problem(line, f"duplicate key {key_node.value!r}", f"it stands first on line {first}: keep one")
                continue
            self._source.lines[(*path, key)] = line
            values[key] = self.value(value_node, (*path, key), depth + 1)
        return values

    def _scalar(self, node: yaml.ScalarNode, path: Location) -> Any:
        kind = node.tag.rpartition(":")[2]
        text: str = node.value
        line = node.start_mark.line + 1
        match kind:
            case "str":
                return text
            case "bool":
                return text.lower() == "true"
            case "null":
                return None
            case "int":
                if len(text) > 400:
                    self._problem(line, "an integer with hundreds of digits", "quote it if it is text")
                    return self._unread(path)
                return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
            case "float":
                return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
            case _:
                self._problem(line, f"the tag {node.tag!r} is not supported", "remove the tag; quote text if needed")
                return self._unread(path)

    def _problem(self, line: int, message: str, hint: str) -> None:
        self._source.problems.append((line, message, hint))
