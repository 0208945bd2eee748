"""Where the fields of a protobuf text file stand: its syntax as a tree, without knowing the schema.

The protobuf library parses a config and says where it fails, but forgets the lines of what it could read. This keeps
them. The syntax: https://protobuf.dev/reference/protobuf/textformat-spec/ (extensions and `Any` are not used by Triton).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field

MAX_DEPTH = 32

Path = tuple[str | int, ...]
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

    A list of messages (`input [ {…}, {…} ]`) is several nodes of one name. `span` covers what must go if the field is
    dropped: of a list, the whole of it.
    """

    name: str
    start: int
    end: int = 0
    values: list[tuple[str, int]] = field(default_factory=list)
    fields: list[Node] = field(default_factory=list)
    span: tuple[int, int] = (0, 0)


class Lines:
    """The lines of a text's fields. Where the text has no sound syntax, it knows none, and says 0."""

    def __init__(self, text: str) -> None:
        self._breaks = [match.start() for match in re.finditer("\n", text)]
        self.root = Node("", 0, len(text))
        self._places: dict[Path, int] = {}
        try:
            _Parser(text).fields(self.root, None, 0)
        except _SyntaxTreeError:
            self.root.fields.clear()
        for path, offset in _places(self.root, ()):
            self._places[path] = self.line_of(offset)

    def line_of(self, offset: int) -> int:
        """The line, from 1, of an offset in characters."""
        return bisect_right(self._breaks, offset - 1) + 1

    def at(self, *path: str | int) -> int:
        """The line of a field, or of the nearest field around it that is there; 1 where none is."""
        full = _full(path)
        for size in range(len(full), 0, -2):
            if full[:size] in self._places:
                return self._places[full[:size]]
        return 1

    def has(self, *path: str | int) -> bool:
        """Whether the text has a field."""
        return _full(path) in self._places

    def offset_of(self, line: int, column: int) -> int:
        """The offset of a place that the protobuf library names; both count from 1."""
        start = self._breaks[line - 2] + 1 if 2 <= line <= len(self._breaks) + 1 else 0
        return start + column - 1

    def chain(self, offset: int) -> list[Node]:
        """The fields around an offset, from the outermost to the innermost."""
        chain: list[Node] = []
        node = self.root
        while True:
            inner = next((each for each in node.fields if each.start <= offset < each.end), None)
            if inner is None:
                return chain
            chain.append(inner)
            node = inner

    def entries(self, *path: str | int) -> list[tuple[str, str, int]]:
        """Key, value and line of every entry of a map field of texts, as written, repeated keys included."""
        node = self._node(path[:-1])
        found = []
        for each in node.fields if node is not None else ():
            if each.name == path[-1]:
                texts = {part.name: _plain(part.values[0][0]) for part in each.fields if part.values}
                found.append((texts.get("key", ""), texts.get("value", ""), self.line_of(each.start)))
        return found

    def _node(self, path: Path) -> Node | None:
        node: Node | None = self.root
        steps = list(path)
        while steps and node is not None:
            name = steps.pop(0)
            number = steps.pop(0) if steps and isinstance(steps[0], int) else 0
            same = [each for each in node.fields if each.name == name]
            node = same[int(number)] if int(number) < len(same) else None
        return node


def _full(path: Path) -> Path:
    """A path with a number after every name."""
    full: list[str | int] = []
    for step in (*path, ""):
        if isinstance(step, str) and full and isinstance(full[-1], str):
            full.append(0)
        full.append(step)
    return tuple(full[:-1])


def _places(node: Node, path: Path) -> Iterator[tuple[Path, int]]:
    count: dict[str, int] = {}
    for each in node.fields:
        number = count.get(each.name, 0)
        for offset_number, (_, offset) in enumerate(each.values):
            yield (*path, each.name, number + offset_number), offset
        if not each.values:
            yield (*path, each.name, number), each.start
        yield from _places(each, (*path, each.name, number))
        count[each.name] = number + max(1, len(each.values))


def _plain(token: str) -> str:
    return token[1:-1] if token[:1] in ("'", '"') else token


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = list(self._scan())
        self._at = 0

    def _scan(self) -> Iterator[tuple[str, str, int]]:
        position = 0
        while position < len(self._text):
            match = _TOKEN.match(self._text, position)
            if match is None:
                raise _SyntaxTreeError
            kind = match.lastgroup or ""
            if kind != "blank":
                yield kind, match[0], position
            position = match.end()
        yield "end", "", position

    def fields(self, parent: Node, closing: str | None, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise _SyntaxTreeError
        while True:
            kind, token, offset = self._next()
            if token == closing or (kind == "end" and closing is None):
                return
            if kind != "word":
                raise _SyntaxTreeError
            self._field(Node(token, offset), parent, depth)
            if self._peek() in (",", ";"):
                self._next()

    def _field(self, node: Node, parent: Node, depth: int) -> None:
        start = node.start
        if self._peek() == ":":
            self._next()
        added = [node]
        if self._peek() == "[":
            self._next()
            added = self._list(node, depth)
        elif self._peek() in _CLOSING:
            self._message(node, depth)
        else:
            self._scalar(node)
        end = self._tokens[self._at - 1][2] + len(self._tokens[self._at - 1][1])
        for each in added:
            each.span = (start, end)
        node.end = node.end or end
        parent.fields += added

    def _list(self, node: Node, depth: int) -> list[Node]:
        messages: list[Node] = []
        while self._peek() != "]":
            if self._peek() in _CLOSING:
                messages.append(Node(node.name, self._tokens[self._at][2]))
                self._message(messages[-1], depth)
            else:
                self._scalar(node)
            if self._peek() == ",":
                self._next()
        self._next()
        return messages or [node]

    def _message(self, node: Node, depth: int) -> None:
        _, token, _ = self._next()
        self.fields(node, _CLOSING[token], depth + 1)
        node.end = self._tokens[self._at - 1][2] + 1

    def _scalar(self, node: Node) -> None:
        kind, token, offset = self._next()
        if kind not in ("word", "text"):
            raise _SyntaxTreeError
        if kind == "text":
            # Texts side by side are one.
            parts = [_plain(token)]
            while self._tokens[self._at][0] == "text":
                parts.append(_plain(self._next()[1]))
            token = f'"{"".join(parts)}"'
        node.values.append((token, offset))

    def _next(self) -> tuple[str, str, int]:
        token = self._tokens[self._at]
        self._at = min(self._at + 1, len(self._tokens) - 1)
        return token

    def _peek(self) -> str:
        kind, token, _ = self._tokens[self._at]
        return token if kind == "mark" else ""
