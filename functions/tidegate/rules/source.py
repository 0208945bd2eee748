"""Reads an author's YAML file into plain values that know their lines.

The dialect is YAML 1.2's core schema, so `NO` is the text "NO" and not false, and `1:30` is text and not 90
(https://yaml.org/spec/1.2.2/#103-core-schema). Duplicate keys, anchors, tags and several documents in a file are refused:
each of them can hide what a rule really says. So is a file without a value: a null document is a mistake, not an absence.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from errno import EFBIG
from pathlib import Path
from typing import Any

import yaml

from tidegate.files import printable, read_regular

MAX_FILE_BYTES = 4 * 1024 * 1024
"""The largest file that is read: some 30 000 rules. What is larger is data, not rules."""

MAX_DEPTH = 32
"""The deepest nesting that is read. libyaml takes quadratic time for deep nesting, and composing its nodes overflows the
stack of the process, so what is deeper ends the reading of the file."""

MAX_DIGITS = 400
"""The most digits of an integer."""

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
    """One file's values. `data` is None where the file could not be read; `problems` are (line, message, hint), and never
    empty then. `unread` are the places whose values could not be read. `is_empty` tells a readable file that holds no
    value, or null alone."""

    file: str
    data: Any = None
    lines: dict[Location, int] = field(default_factory=dict)
    problems: list[tuple[int, str, str]] = field(default_factory=list)
    unread: set[Location] = field(default_factory=set)
    is_empty: bool = False

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
        text = read_regular(path, MAX_FILE_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        source.problems.append((line, "the file is not UTF-8 text", "save it with the encoding UTF-8"))
        return source
    except OSError as error:
        hint = "split it, or move long lists elsewhere" if error.errno == EFBIG else "check its name and permissions"
        source.problems.append((0, f"the file cannot be read: {error.strerror}", hint))
        return source
    _parse(text, source)
    return source


class _TooDeepError(Exception):
    """The file is nested deeper than is read; the problem has been noted."""


def _parse(text: str, source: Source) -> None:
    loader: Any = None
    try:
        loader = _Loader(text)
        data = _Builder(source, loader).document()
        source.data = None if data is UNREAD else data
        if data is None and not source.problems:
            source.is_empty = True
            source.problems.append((source.line(()), "the file is empty", "write its keys, or delete the file"))
    except _TooDeepError:
        pass
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


def _words(problem: str, text: str, mark: Any) -> tuple[str, str]:
    lines = text.splitlines()
    if mark is not None and mark.line < len(lines) and "\t" in lines[mark.line]:
        return "tabs are not allowed for indentation", "use spaces"
    return f"not valid YAML: {problem}", "check the indentation, the quotes and the brackets on this line and above"


class _Builder:
    """Builds a document's value from the parser's events, and notes the line of each value.

    Events and not the composer's nodes: those lose which tags were written, and are composed by recursion without bound.
    """

    def __init__(self, source: Source, loader: Any) -> None:
        self._source, self._loader = source, loader

    def document(self) -> Any:
        """The value of the only document; None where there is none."""
        self._loader.get_event()
        if self._loader.check_event(yaml.StreamEndEvent):
            return None
        start = self._loader.get_event()
        if start.version not in (None, (1, 2)):
            line = start.start_mark.line + 1
            self._problem(line, "the directive %YAML asks for another version than 1.2", "delete the directive")
        value = self._value(self._loader.get_event(), (), 0)
        self._loader.get_event()
        if not self._loader.check_event(yaml.StreamEndEvent):
            line = self._loader.get_event().start_mark.line + 1
            self._problem(
                line, "the file holds more than one YAML document", "keep one document, without a second '---'"
            )
        return value

    def _value(self, event: Any, path: Location, depth: int) -> Any:
        line = event.start_mark.line + 1
        self._source.lines.setdefault(path, line)
        if isinstance(event, yaml.AliasEvent):
            self._problem(line, f"an alias (*{event.anchor}) is used", "write the value out")
            return self._unread(path)
        if depth > MAX_DEPTH:
            self._problem(
                line, f"nested deeper than {MAX_DEPTH} levels; the rest of the file is not read", "flatten it"
            )
            raise _TooDeepError
        if event.anchor is not None:
            hint = "delete it; write the value out where it is used"
            self._problem(line, f"an anchor (&{event.anchor}) is used", hint)
        if event.tag is not None:
            hint = "remove the tag; put text in quotes"
            self._problem(line, f"the tag {printable(event.tag)!r} is not supported", hint)
        if isinstance(event, yaml.MappingStartEvent):
            value: Any = self._mapping(path, depth)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = self._sequence(path, depth)
        else:
            value = self._scalar(event, path) if event.tag is None else None
        return value if event.tag is None else self._unread(path)

    def _sequence(self, path: Location, depth: int) -> list[Any]:
        values: list[Any] = []
        while not isinstance(event := self._loader.get_event(), yaml.SequenceEndEvent):
            values.append(self._value(event, (*path, len(values)), depth + 1))
        return values

    def _mapping(self, path: Location, depth: int) -> dict[Any, Any]:
        values: dict[Any, Any] = {}
        first: dict[str, int] = {}
        while not isinstance(event := self._loader.get_event(), yaml.MappingEndEvent):
            key = self._key(event, path, depth)
            value = self._loader.get_event()
            line = event.start_mark.line + 1
            if key is UNREAD:
                self._skip(value, path, depth)
            elif str(key) in first:
                hint = f"the first is on line {first[str(key)]}: keep one"
                self._problem(line, f"duplicate key {str(key)!r}", hint)
                self._skip(value, path, depth)
            else:
                first[str(key)] = self._source.lines[(*path, key)] = line
                values[key] = self._value(value, (*path, key), depth + 1)
        return values

    def _key(self, event: Any, path: Location, depth: int) -> Any:
        """A mapping's key; `UNREAD` for one that no file of rules can have."""
        line = event.start_mark.line + 1
        if not isinstance(event, yaml.ScalarEvent):
            self._problem(line, "a key is not a scalar", "use text as the key")
            self._skip(event, path, depth)
            return self._unread(path)
        if event.value == "<<" and event.implicit[0]:
            self._problem(line, "a merge key (<<) is used", "write the keys out")
            return self._unread((*path, "<<"))
        problems = len(self._source.problems)
        key = self._value(event, (*path, event.value), depth + 1)
        if key is not UNREAD and type(key) not in (str, int):
            kind = {bool: "a boolean", float: "a number with a fraction"}.get(type(key), "null")
            self._problem(line, f"the key {printable(event.value)!r} is {kind}", "put it in quotes if it is text")
        # A key with a problem of its own is not compared with the others.
        return key if len(self._source.problems) == problems else UNREAD

    def _skip(self, event: Any, path: Location, depth: int) -> None:
        """Pass over a value, noting what is wrong in it but not where its values are."""
        if isinstance(event, yaml.CollectionStartEvent | yaml.ScalarEvent | yaml.AliasEvent):
            aside = Source(self._source.file, problems=self._source.problems)
            _Builder(aside, self._loader)._value(event, path, depth + 1)

    def _scalar(self, event: Any, path: Location) -> Any:
        text: str = event.value
        line = event.start_mark.line + 1
        match self._loader.resolve(yaml.ScalarNode, text, event.implicit).rpartition(":")[2]:
            case "bool":
                return text.lower() == "true"
            case "null":
                return None
            case "int":
                if len(text) > MAX_DIGITS:
                    self._problem(line, f"an integer of more than {MAX_DIGITS} digits", "quote it if it is text")
                    return self._unread(path)
                return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
            case "float":
                return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
            case _:
                return text

    def _unread(self, path: Location) -> Unread:
        self._source.unread.add(path)
        return UNREAD

    def _problem(self, line: int, message: str, hint: str) -> None:
        self._source.problems.append((line, message, hint))
