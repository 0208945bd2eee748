"""Lines and offsets of the fields of a protobuf text file: its syntax as a tree, without knowing the schema.

The protobuf library parses a config and says where it fails, but forgets the lines of what it could read. The syntax:
https://protobuf.dev/reference/protobuf/textformat-spec/ (Triton uses neither extensions nor `Any`).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field

MAX_DEPTH = 32

Place = tuple[str | int, ...]
"""Names of fields, each optionally followed by which one of its occurrences, from 0: `("input", 1, "dims")`."""

_TOKEN = re.compile(
    r"""
    (?P<blank>[\s]+|\#[^\n]*)
  | (?P<text>"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')
  | (?P<word>[-+]?[A-Za-z0-9_.][-+A-Za-z0-9_.]*)
  | (?P<mark>[{}<>\[\]:,;])
    """,
    re.VERBOSE,
)
_CLOSING = {"{": "}", "<": ">"}


class _SyntaxTreeError(Exception):
    """The text is not in protobuf's text format, or is nested too deeply."""


@dataclass(slots=True)
class Node:
    """One field: its name, where it begins and ends (offsets), the texts and offsets of its scalar values, and its fields.

    A list of messages (`input [ {…}, {…} ]`) is several nodes of one name. `span` is what to remove to drop the field: of a
    list, the whole of it.
    """

    name: str
    start: int
    end: int = 0
    values: list[tuple[str, int]] = field(default_factory=list)
    fields: list[Node] = field(default_factory=list)
    span: tuple[int, int] = (0, 0)


class Lines:
    """The lines of a text's fields; none if its syntax is wrong."""

    def __init__(self, text: str) -> None:
        self._breaks = [match.start() for match in re.finditer("\n", text)]
        self.root = Node("", 0, len(text))
        self._places: dict[Place, tuple[Node, int]] = {(): (self.root, 0)}
        try:
            _Parser(text).fields(self.root, None, 0)
        except _SyntaxTreeError:
            self.root.fields.clear()
        self._note_places(self.root, ())

    def _note_places(self, node: Node, place: Place) -> None:
        count = Counter[str]()
        for each in node.fields:
            first = count[each.name]
            offsets = [offset for _, offset in each.values] or [each.start]
            for number, offset in enumerate(offsets, first):
                self._places[(*place, each.name, number)] = each, offset
            self._note_places(each, (*place, each.name, first))
            count[each.name] += len(offsets)

    def line_of(self, offset: int) -> int:
        """Return the line, from 1, of an offset in characters."""
        return bisect_right(self._breaks, offset - 1) + 1

    def at(self, *path: str | int) -> int:
        """Return the line of a field, or of the nearest field around it that is there; 1 if there is none."""
        full = _full(path)
        for size in range(len(full), 0, -2):
            if full[:size] in self._places:
                return self.line_of(self._places[full[:size]][1])
        return 1

    def has(self, *path: str | int) -> bool:
        """Return whether the text has a field."""
        return _full(path) in self._places

    def chain(self, line: int, column: int) -> list[Node]:
        """Return the fields around a place, from the outermost to the innermost. Lines and columns count from 1."""
        start = self._breaks[line - 2] + 1 if 2 <= line <= len(self._breaks) + 1 else 0
        offset = start + column - 1
        chain: list[Node] = []
        node: Node | None = self.root
        while node is not None:
            node = next((each for each in node.fields if each.start <= offset < each.end), None)
            chain += [] if node is None else [node]
        return chain

    def entries(self, *path: str | int) -> list[tuple[str, int]]:
        """Return the key and the line of every entry of a map field, as written, repeated keys included."""
        node, _ = self._places.get(_full(path[:-1]), (None, 0))
        found = []
        for each in node.fields if node is not None else ():
            if each.name == path[-1]:
                keys = [_plain(part.values[0][0]) for part in each.fields if part.name == "key" and part.values]
                found.append((keys[-1] if keys else "", self.line_of(each.start)))
        return found


def _full(path: Place) -> Place:
    """Return a path with a number after every name."""
    full: list[str | int] = []
    for step in (*path, ""):
        if isinstance(step, str) and full and isinstance(full[-1], str):
            full.append(0)
        full.append(step)
    return tuple(full[:-1])


def _plain(token: str) -> str:
    return token[1:-1] if token[:1] in ("'", '"') else token


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str, int]] = []
        position = 0
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise _SyntaxTreeError
            if match.lastgroup != "blank":
                self._tokens.append((match.lastgroup or "", match[0], position))
            position = match.end()
        self._tokens.append(("end", "", position))
        self._at = 0

    def fields(self, parent: Node, closing: str | None, depth: int) -> None:
        """Add fields to a parent, up to a closing mark; None: to the end of the text."""
        if depth > MAX_DEPTH:
            raise _SyntaxTreeError
        while True:
            kind, token, offset = self._next()
            if token == closing or (kind == "end" and closing is None):
                return
            if kind != "word":
                raise _SyntaxTreeError
            self._field(Node(token, offset), parent, depth)
            self._skip(",", ";")

    def _field(self, node: Node, parent: Node, depth: int) -> None:
        added = [node]
        self._skip(":")
        if self._skip("["):
            messages: list[Node] = []
            while not self._skip("]"):
                if self._mark() in _CLOSING:
                    messages.append(Node(node.name, self._tokens[self._at][2]))
                    self._message(messages[-1], depth)
                else:
                    self._scalar(node)
                self._skip(",")
            added = messages or [node]
        elif self._mark() in _CLOSING:
            self._message(node, depth)
        else:
            self._scalar(node)
        _, last, offset = self._tokens[self._at - 1]
        node.end = node.end or offset + len(last)
        for each in added:
            each.span = (node.start, offset + len(last))
        parent.fields += added

    def _message(self, node: Node, depth: int) -> None:
        _, token, _ = self._next()
        self.fields(node, _CLOSING[token], depth + 1)
        node.end = self._tokens[self._at - 1][2] + 1

    def _scalar(self, node: Node) -> None:
        kind, token, offset = self._next()
        if kind not in ("word", "text"):
            raise _SyntaxTreeError
        if kind == "text":
            # Adjacent texts are one.
            parts = [_plain(token)]
            while self._tokens[self._at][0] == "text":
                parts.append(_plain(self._next()[1]))
            token = f'"{"".join(parts)}"'
        node.values.append((token, offset))

    def _next(self) -> tuple[str, str, int]:
        token = self._tokens[self._at]
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token

    def _mark(self) -> str | None:
        kind, token, _ = self._tokens[self._at]
        return token if kind == "mark" else None

    def _skip(self, *marks: str) -> bool:
        """Step over the next token if it is one of some marks; return whether it is."""
        is_there = self._mark() in marks
        if is_there:
            self._next()
        return is_there
