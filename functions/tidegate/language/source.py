"""Reads an author's YAML file into plain values that know their lines.

The dialect is YAML 1.2's core schema, so `NO` is the text "NO" and not false, and `1:30` is text and not 90
(https://yaml.org/spec/1.2.2/#103-core-schema). Duplicate keys, anchors, tags and several documents in a file are refused:
each of them can hide what a rule really says. So is a file without a value: a null document is a mistake, not an absence.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum
from errno import EFBIG
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from tidegate.errors import Finding, printable
from tidegate.files import read_regular
from tidegate.language.yaml_errors import Problem, problem_of

MAX_FILE_BYTES = 4 * 1024 * 1024
"""The largest file that is read: some 30 000 rules. What is larger is data, not rules."""

MAX_DEPTH = 32
"""The deepest nesting that is read. libyaml takes quadratic time for deep nesting, and composing its nodes overflows the
stack of the process, so what is deeper ends the reading of the file."""

MAX_DIGITS = 400
Location = tuple[str | int, ...]


class Unread(Enum):
    """Takes the place of a value that could not be read; the problem has been noted."""

    UNREAD = "unread"


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


def items_at(value: Any, at: Location) -> list[tuple[Location, Any]]:
    """Return the items of a list, each with its place; a value in place of a list is its only item."""
    return [((*at, index), item) for index, item in enumerate(value)] if isinstance(value, list) else [(at, value)]


@dataclass(slots=True)
class Source:
    """One file's values. `data` is None where the file could not be read, and `problems` are never empty then. `places`
    tell the line and the column, from 1, of each value, or of its key where it has one. `unread` are the places whose
    values could not be read. `is_empty` marks a readable file without a value, or with null alone."""

    file: str
    data: Any = None
    places: dict[Location, tuple[int, int]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unread: set[Location] = field(default_factory=set)
    is_empty: bool = False

    def line(self, path: Location) -> int:
        """Return the line of the value at `path`, or of the nearest value around it that has one."""
        return self.place(path)[0]

    def findings(self) -> Iterator[Finding]:
        for each in self.problems:
            yield Finding(self.file, each.line, "", each.message, each.hint, each.column)

    def place(self, path: Location) -> tuple[int, int]:
        """Return the line and the column of the value at `path`, or of the nearest value around it that has them."""
        for size in range(len(path), -1, -1):
            if path[:size] in self.places:
                return self.places[path[:size]]
        return 1, 1


def read_source(path: Path, file: str) -> Source:
    """Read one YAML file. Every problem found is in the result; nothing is raised for an author's mistake."""
    try:
        text = read_regular(path, MAX_FILE_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = error.object[: error.start]
        line, column = before.count(b"\n") + 1, len(before.rpartition(b"\n")[2].decode("utf-8", "replace")) + 1
        problem = Problem(line, column, "the file is not UTF-8 text", "save it with the encoding UTF-8")
        return Source(file, problems=[problem])
    except OSError as error:
        hint = "split it, or move long lists elsewhere" if error.errno == EFBIG else "check its name and permissions"
        return Source(file, problems=[Problem(0, 0, f"the file cannot be read: {error.strerror}", hint)])
    return read_text(text, file)


class _TooDeepError(Exception):
    """The file is nested deeper than is read; the problem has been noted."""


def read_text(text: str, name: str) -> Source:
    """Read YAML; `name` is what messages call it."""
    source = Source(name)
    loader: Any = None
    try:
        loader = _Loader(text)
        data = _Builder(source, loader).document()
        source.data = None if data is UNREAD else data
        if data is None and not source.problems:
            source.is_empty = True
            place = source.place(())
            hint = "write its keys, or delete the file"
            if PurePosixPath(source.file).name == "callers.yaml":
                hint = "write its keys, callers: {…}; without the file everybody may call everything"
            source.problems.append(Problem(*place, "the file is empty", hint))
    except _TooDeepError:
        pass
    except yaml.MarkedYAMLError as error:
        source.problems.append(problem_of(error, text))
    except yaml.reader.ReaderError as error:
        line, before = text.count("\n", 0, error.position) + 1, text[: error.position].rpartition("\n")[2]
        message = "the file holds a character that YAML forbids"
        source.problems.append(Problem(line, len(before) + 1, message, "remove the control character"))
    finally:
        if loader is not None:
            loader.dispose()
    return source


class _Builder:
    """Builds a document's value from the parser's events, and notes the place of each value.

    Events and not the composer's nodes: those lose which tags were written, and are composed by recursion without bound.
    """

    def __init__(self, source: Source, loader: Any) -> None:
        self._source, self._loader = source, loader

    def document(self) -> Any:
        """Return the value of the only document; None where there is none."""
        self._loader.get_event()
        if self._loader.check_event(yaml.StreamEndEvent):
            return None
        start = self._loader.get_event()
        if start.version not in (None, (1, 2)):
            self._problem(
                _place(start), "the directive %YAML asks for another version than 1.2", "delete the directive"
            )
        value = self._value(self._loader.get_event(), (), 0)
        self._loader.get_event()
        if not self._loader.check_event(yaml.StreamEndEvent):
            self._problem(
                _place(self._loader.get_event()),
                "the file holds more than one YAML document",
                "keep one document, without a second '---'",
            )
        return value

    def _value(self, event: Any, path: Location, depth: int) -> Any:
        place = _place(event)
        self._source.places.setdefault(path, place)
        if isinstance(event, yaml.AliasEvent):
            self._problem(
                place, f"an alias (*{event.anchor}) is used", "write the value out, or put it in quotes if it is text"
            )
            return self._unread(path)
        if depth > MAX_DEPTH:
            self._problem(
                place, f"nested deeper than {MAX_DEPTH} levels; the rest of the file is not read", "flatten it"
            )
            raise _TooDeepError
        if event.anchor is not None:
            hint = "delete it and write the value out where it is used, or put it in quotes if it is text"
            self._problem(place, f"an anchor (&{event.anchor}) is used", hint)
        if event.tag is not None:
            hint = "remove the tag; put text in quotes"
            self._problem(place, f"the tag {printable(event.tag)!r} is not supported", hint)
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
        first: dict[str, tuple[int, int]] = {}
        while not isinstance(event := self._loader.get_event(), yaml.MappingEndEvent):
            key = self._key(event, path, depth)
            value = self._loader.get_event()
            place = _place(event)
            if key is UNREAD:
                self._skip(value, path, depth)
            elif isinstance(key, str) and ":" in key and _is_nothing(value) and event.implicit[0]:
                name, _, rest = key.partition(":")
                hint = (
                    f"write a space after the colon: `{name}: {rest}`; put the key in quotes if the colon is part of it"
                )
                self._problem(place, f"{key!r} is one text, a key without a value", hint)
                values[key] = self._unread((*path, key))
            elif str(key) in first:
                hint = f"the first is on line {first[str(key)][0]}: keep one"
                self._problem(place, f"duplicate key {str(key)!r}", hint)
                self._skip(value, path, depth)
            else:
                first[str(key)] = self._source.places[(*path, key)] = place
                values[key] = self._value(value, (*path, key), depth + 1)
        return values

    def _key(self, event: Any, path: Location, depth: int) -> Any:
        """Return a mapping's key; `UNREAD` for one that no file of rules can have."""
        place = _place(event)
        if not isinstance(event, yaml.ScalarEvent):
            self._problem(place, "a key is not a scalar", "use text as the key")
            self._skip(event, path, depth)
            return self._unread(path)
        if event.value == "<<" and event.implicit[0]:
            self._problem(place, "a merge key (<<) is used", "write the keys out")
            return self._unread((*path, "<<"))
        problems = len(self._source.problems)
        key = self._value(event, (*path, event.value), depth + 1)
        if key is not UNREAD and type(key) not in (str, int):
            kind = {bool: "a boolean", float: "a number with a fraction"}.get(type(key), "null")
            self._problem(place, f"the key {printable(event.value)!r} is {kind}", "put it in quotes if it is text")
        # A key with a problem of its own is not compared with the others.
        return key if len(self._source.problems) == problems else UNREAD

    def _skip(self, event: Any, path: Location, depth: int) -> None:
        """Pass over a value, noting what is wrong in it but not where its values are."""
        if isinstance(event, yaml.CollectionStartEvent | yaml.ScalarEvent | yaml.AliasEvent):
            aside = Source(self._source.file, problems=self._source.problems)
            _Builder(aside, self._loader)._value(event, path, depth + 1)

    def _scalar(self, event: Any, path: Location) -> Any:
        text: str = event.value
        place = _place(event)
        match self._loader.resolve(yaml.ScalarNode, text, event.implicit).rpartition(":")[2]:
            case "bool":
                return text.lower() == "true"
            case "null":
                return None
            case "int":
                if len(text) > MAX_DIGITS:
                    self._problem(place, f"an integer of more than {MAX_DIGITS} digits", "quote it if it is text")
                    return self._unread(path)
                return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
            case "float":
                return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
            case _:
                return text

    def _unread(self, path: Location) -> Unread:
        self._source.unread.add(path)
        return UNREAD

    def _problem(self, place: tuple[int, int], message: str, hint: str) -> None:
        self._source.problems.append(Problem(*place, message, hint))


def _is_nothing(event: Any) -> bool:
    """Return whether a key has no value, not even `null`."""
    return isinstance(event, yaml.ScalarEvent) and event.value == "" and event.implicit[0] and event.tag is None


def _place(event: Any) -> tuple[int, int]:
    return event.start_mark.line + 1, event.start_mark.column + 1
