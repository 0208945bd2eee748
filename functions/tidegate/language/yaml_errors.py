"""Describes errors of the YAML parser in an author's words, at the place where the mistake begins.

The parser stops where it no longer understands, which may be many lines below: an unclosed quote at the end of the file.
Its context mark is where that began.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, NamedTuple

import yaml

_TWO_COLONS = re.compile(r"\s*(?:- +)*[^\s#\"'][^#\"']*?:\s+(?P<value>[^\s{\[].*:(?:\s.*|$))")
_INDICATORS = "@`%|>!&*?"


@dataclass(frozen=True, slots=True)
class Problem:
    """A mistake that keeps a file, or a value in it, from being read. `line` and `column` count from 1; 0: the file as a
    whole. `hint` says what would be right."""

    line: int
    column: int
    message: str
    hint: str


def problem_of(error: Any, text: str) -> Problem:
    """Describe a `yaml.MarkedYAMLError` for the text of a file in an author's words."""
    stopped, began = error.problem_mark or error.context_mark, error.context_mark
    if stopped is None:
        return Problem(1, 1, f"not valid YAML: {error.problem or error.context}", _CHECK)
    lines = text.splitlines()
    line = lines[stopped.line] if stopped.line < len(lines) else ""
    here = _Here(line, stopped.column, line[stopped.column : stopped.column + 1])
    problem, context = error.problem or "", error.context or ""
    if context == "while scanning a quoted scalar" and began is not None:
        message, hint = "the quote that opens here is never closed", "close it, or delete it where the text needs none"
        return _at(began, message, hint)
    if "scanning an alias" in context or "scanning an anchor" in context:
        sign = lines[began.line][began.column] if began is not None else "*"
        return _at(began or stopped, f"{sign!r} alone has a meaning of its own in YAML", f'put it in quotes: "{sign}"')
    if "flow" in context and (opening := _open_bracket(text)) is not None:
        return _in_brackets(stopped, opening, lines, here)
    if began is not None and "could not find expected ':'" in problem:
        return _at(began, "a line of a mapping has no ': '", "write `key: value`, with a space after the colon")
    return _at(stopped, *_words(problem, context, here, began))


_CHECK = "check the indentation, the quotes and the brackets on this line and above"


class _Here(NamedTuple):
    """The line on which the parser stopped, the column from 0, and the character there, which is empty at the line's end."""

    line: str
    column: int
    character: str


def _at(mark: Any, message: str, hint: str) -> Problem:
    return Problem(mark.line + 1, mark.column + 1, message, hint)


def _open_bracket(text: str) -> Any:
    """Return the mark of the innermost `{` or `[` that is open when the parser stops."""
    marks: list[Any] = []
    try:
        for event in yaml.parse(text, Loader=yaml.CSafeLoader):
            if isinstance(event, yaml.CollectionStartEvent):
                marks.append(event.start_mark if event.flow_style else None)
            elif isinstance(event, yaml.CollectionEndEvent):
                marks.pop()
    except yaml.YAMLError:
        return marks[-1] if marks else None
    return None


def _in_brackets(stopped: Any, opening: Any, lines: list[str], here: _Here) -> Problem:
    """Describe a mistake within `{…}` or `[…]`, at the bracket where it is not closed on its line, else where the parser stopped."""
    bracket = lines[opening.line][opening.column]
    closing = "}" if bracket == "{" else "]"
    if stopped.line != opening.line:
        hint = f"close it with {closing!r}, and put a comma between its items"
        return _at(opening, f"the {bracket!r} that opens here is not closed", hint)
    hint = f"put a comma between items, close the {bracket!r} with {closing!r}, and put text that has , : {{ }} [ ] in quotes"
    return _at(stopped, f"a ',' or {closing!r} is missing before {here.character or 'the end of the line'!r}", hint)


def _words(problem: str, context: str, here: _Here, began: Any) -> tuple[str, str]:
    """Return the message and the hint for a mistake that is where the parser stopped."""
    if "\t" in here.line[: len(here.line) - len(here.line.lstrip())]:
        return "tabs are not allowed for indentation", "use spaces"
    if "unknown escape character" in problem:
        what = f"{here.line[here.column : here.column + 2]!r} is not an escape that a text in double quotes may have"
        return what, r"write \\ for a backslash, or use single quotes"
    if "mapping values are not allowed" in problem:
        match = _TWO_COLONS.match(here.line)
        if match is not None:
            return "a value without quotes has ': ' in it", f'put the whole value in quotes: "{match["value"].strip()}"'
        return "a key is not expected here", "indent it like the keys beside it; the line above may lack its ':'"
    if "block sequence entries are not allowed" in problem:
        return "a list item ('- ') is not expected here", "begin the list on the next line, or put the text in quotes"
    if "cannot start any token" in problem or "scanning a block scalar" in context:
        sign = here.character if here.character in _INDICATORS else here.line[here.column - 1 : here.column]
        return f"a text without quotes cannot begin with {sign!r}", "put it in quotes"
    if "did not find expected key" in problem:
        keys = f"the mapping that begins on line {began.line + 1}" if began is not None else "its mapping"
        return (
            f"a key of {keys} is expected here",
            "indent all its keys alike; a text that has quotes in it needs quotes around the whole",
        )
    if "did not find expected node content" in problem:
        return f"a value is expected here, not {here.character!r}", "write the value, or put the text in quotes"
    return f"not valid YAML: {' '.join(filter(None, (context, problem)))}", _CHECK
