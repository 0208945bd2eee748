"""Scans JSON without parsing it: a regular expression skips large values, at some nanoseconds a byte.

The scan accepts everything that Triton's parser accepts and sees the same nesting (RapidJSON, which also reads NaN and invalid
UTF-8, and stops at a NUL). JSON that it cannot scan is refused, since Triton might read it differently.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from typing import Final

MOST_NESTED: Final = 36
"""How deep JSON may be nested: a tensor of 32 dimensions, NumPy's limit, in the four levels of a request.

Triton 2.51 parses JSON by recursion, and crashes at 150 000 levels anywhere, and at 40 000 in the data of a tensor."""

MOST_MEMBERS: Final = 256
"""The most members that are scanned of one object; each takes microseconds."""

_BLANKS: Final = rb"[ \t\n\r]*+"
_TEXT: Final = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_FLAT: Final = rb'[^\[\]{}"]*+(?:' + _TEXT + rb'[^\[\]{}"]*+)*+'
"""Everything between two brackets. All repetitions are possessive: without backtracking a match takes linear time."""

_NAME: Final = re.compile(_BLANKS + rb"(" + _TEXT + rb")" + _BLANKS + b":" + _BLANKS, re.DOTALL)
_SCALAR: Final = re.compile(_TEXT + rb'|[^ \t\n\r,:"\[\]{}]++', re.DOTALL)
# RapidJSON skips each byte of a byte order mark independently, if it is there.
_START: Final = re.compile(rb"\xef?\xbb?\xbf?" + _BLANKS)
_NEXT: Final = re.compile(_BLANKS + rb"([,}])")
_EMPTY: Final = re.compile(_BLANKS + rb"\}")


class UnwalkableError(ValueError):
    """JSON is malformed or nested too deeply. The message does not quote it."""

    def __init__(self) -> None:
        super().__init__(f"it is malformed, or nested more than {MOST_NESTED} levels deep")


def check_nesting(text: bytes, end: int) -> None:
    """Check that the first `end` bytes of `text` are nested at most `MOST_NESTED` levels deep.

    Raises:
        UnwalkableError: they are nested deeper, or an array or object does not end.
    """
    if text.count(b"[", 0, end) + text.count(b"{", 0, end) <= MOST_NESTED:
        return
    start = _start(text, end)
    if text[start : start + 1] in (b"[", b"{"):
        _end_of_value(text, start, end, MOST_NESTED)


def top_members(text: bytes, end: int) -> dict[str, tuple[int, int]]:
    """Return the start and end of each member's value in an object, by name; empty if the JSON is not an object.

    Raises:
        UnwalkableError: the JSON is malformed or nested too deeply.
        ValueError: a name is duplicated, or there are more than `MOST_MEMBERS`.
    """
    found: dict[str, tuple[int, int]] = {}
    for name, start, stop in _members(text, _start(text, end), end):
        if len(found) == MOST_MEMBERS:
            raise ValueError(f"it has more than {MOST_MEMBERS} members")
        if name in found:
            raise ValueError("a name is duplicated in one object")
        found[name] = (start, stop)
    return found


def _members(text: bytes, at: int, end: int) -> Iterator[tuple[str, int, int]]:
    if text[at : at + 1] != b"{" or at >= end:
        return
    at += 1
    if _EMPTY.match(text, at, end):
        return
    while True:
        match = _NAME.match(text, at, end)
        if match is None:
            raise UnwalkableError
        start = match.end()
        stop = _end_of_value(text, start, end, MOST_NESTED - 1)
        yield _name(match[1]), start, stop
        following = _NEXT.match(text, stop, end)
        if following is None:
            raise UnwalkableError
        if following[1] == b"}":
            return
        at = following.end()


def _name(quoted: bytes) -> str:
    if b"\\" not in quoted:
        return quoted[1:-1].decode("utf-8", "surrogateescape")
    try:
        name: str = json.loads(quoted.decode("utf-8", "surrogateescape"), strict=False)
    except ValueError:
        raise UnwalkableError from None
    return name


def _start(text: bytes, end: int) -> int:
    match = _START.match(text, 0, end)
    assert match is not None  # all of it is optional
    return match.end()


def _end_of_value(text: bytes, start: int, end: int, levels: int) -> int:
    pattern = _nested(levels) if text[start : start + 1] in (b"[", b"{") else _SCALAR
    match = pattern.match(text, start, end)
    if match is None:
        raise UnwalkableError
    return match.end()


@functools.cache
def _nested(levels: int) -> re.Pattern[bytes]:
    """Return a pattern for an array or object nested at most `levels` deep. Compiling it takes some 15 ms."""
    pattern = rb"[\[{]" + _FLAT + rb"[\]}]"
    for _ in range(levels - 1):
        pattern = rb"[\[{]" + _FLAT + rb"(?:" + pattern + _FLAT + rb")*+[\]}]"
    return re.compile(pattern, re.DOTALL)
