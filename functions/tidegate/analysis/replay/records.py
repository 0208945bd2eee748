"""Recorded contexts: JSON lines, read from a stream in constant memory.

A line is `{"objective": "…", "context": {…}, "at": …, "allocations": {…}}`, of which `at` (Unix seconds, or ISO 8601, UTC
where it has no offset) and `allocations` (the caller's cells, as in a case file) are optional; other keys are ignored.
Where a default objective is given, a line may leave `objective` out; one with neither `objective` nor `context` is itself
the context.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

from tidegate.rules.times import EARLIEST, LATEST, parse_time
from tidegate.strict_json import DuplicateNameError, NotFiniteError, refuse_constant, unique_names

LONGEST_LINE_BYTES = 1 << 20
BLOCK_BYTES = LONGEST_LINE_BYTES
"""Bytes of one read: at most those of a line, so that only the first line of a block can be too long."""


class Stream(Protocol):
    def read(self, size: int, /) -> bytes:
        """Return at most `size` bytes, none at the end."""


class Unreadable(NamedTuple):
    """The reason why a line, or the rest of the stream, is not text."""

    reason: str


NOT_UTF_8 = Unreadable("not UTF-8")
TOO_LONG = Unreadable("longer than 1 MiB")
DAMAGED = Unreadable("the compression is damaged or cut off here; the rest was not read")

Line = str | Unreadable

Record = tuple[int, str | None, Any, float | None]
"""(line number from 1, objective, context, moment); a line that is not a record has no objective, and the reason as its context."""

_NANOSECONDS_END = LATEST * 1e9

_SPACE = " \t\r\n\ufeff"
"""JSON's white space, and the byte order mark that some programs write."""


def records(
    stream: Stream, objective: str | None = None, on_block: Callable[[], None] | None = None
) -> Iterator[Record]:
    """Yield every record of a log in UTF-8; blank lines are skipped.

    `objective` is that of lines that name none; `on_block` is called after each MiB or less.
    """
    number = 0
    decode = json.JSONDecoder(parse_constant=refuse_constant, object_pairs_hook=unique_names).raw_decode
    for lines in _blocks(stream):
        for line in lines:
            number += 1
            if isinstance(line, Unreadable):
                yield number, None, line.reason, None
                continue
            try:
                value, end = decode(line)
            except (ValueError, RecursionError):
                if line.strip(_SPACE):
                    yield _slowly(number, line, objective)
                continue
            if end != len(line) and line[end:].strip(_SPACE):
                yield number, None, "more than one JSON value", None
                continue
            yield _record(number, value, objective)
        if on_block is not None:
            on_block()


def _no_time(value: Any) -> str:
    """Return why a value is not a time, without the value: it may be personal data in the wrong place."""
    if isinstance(value, int | float) and not isinstance(value, bool) and LATEST < value < _NANOSECONDS_END:
        return "`at` is not a time: it is after the year 9999 in Unix seconds; divide milliseconds by 1000"
    return "`at` is not a time: neither ISO 8601 nor Unix seconds"


def _slowly(number: int, line: str, objective: str | None) -> Record:
    """Return the record of a line that could not be decoded in one step."""
    try:
        value = json.loads(line.strip(_SPACE), parse_constant=refuse_constant, object_pairs_hook=unique_names)
    except json.JSONDecodeError as error:
        return number, None, "more than one JSON value" if error.msg == "Extra data" else "not JSON", None
    except (NotFiniteError, DuplicateNameError) as error:
        return number, None, str(error), None
    except RecursionError:
        return number, None, "nested too deep", None
    except ValueError:
        return number, None, "an integer of more than 4300 digits", None
    return _record(number, value, objective)


def _record(number: int, value: Any, objective: str | None) -> Record:
    if not isinstance(value, dict):
        return number, None, "not a JSON object", None
    if objective is not None and "context" not in value and "objective" not in value:
        return number, objective, value, None
    context, name, at = value.get("context"), value.get("objective"), value.get("at")
    if not isinstance(context, dict):
        return number, None, "no `context`" if context is None else "`context` is not an object", None
    if name is None:
        name = objective
    if not isinstance(name, str):
        return number, None, "no `objective`" if name is None else "`objective` is not text", None
    if (allocations := value.get("allocations")) is not None:
        if "allocations" in context:
            return number, None, "`allocations` are both in the line and in its context", None
        context["allocations"] = allocations
    try:
        return number, name, context, None if at is None else moment(at)
    except ValueError:
        return number, None, _no_time(at), None


def moment(value: Any) -> float:
    """Unix seconds from a number of them or from ISO 8601 text, UTC where it has no offset.

    Raises:
        ValueError: it is neither, or is outside the years 1–9999 (as milliseconds are).
    """
    if value.__class__ is str:
        return parse_time(value)
    # Comparing also refuses NaN and infinity.
    if isinstance(value, int | float) and not isinstance(value, bool) and EARLIEST <= value <= LATEST:
        return float(value)
    raise ValueError("neither ISO 8601 nor Unix seconds")


def _blocks(stream: Stream) -> Iterator[list[Line]]:
    """Yield all lines in order, without their ends, as they come in from the stream: UTF-8 text, or why there is none.

    What a damaged gzip stream gives before the damage is read; then the last line is `DAMAGED`.
    """
    rest, dropping = b"", False
    while True:
        try:
            block = stream.read(BLOCK_BYTES)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            yield [DAMAGED]
            return
        if not block:
            if rest or dropping:
                yield [TOO_LONG] if dropping else _lines(rest)
            return
        end = block.rfind(b"\n")
        if end < 0:
            rest += block
        else:
            lines = _lines(rest + block[:end])
            if dropping or len(rest) + block.find(b"\n") > LONGEST_LINE_BYTES:
                lines[0] = TOO_LONG
            rest, dropping = block[end + 1 :], False
            yield lines
        if len(rest) > LONGEST_LINE_BYTES:
            rest, dropping = b"", True
        elif dropping:
            rest = b""


def _lines(block: bytes) -> list[Line]:
    try:
        return [*block.decode().split("\n")]
    except UnicodeDecodeError:
        return [_line(line) for line in block.split(b"\n")]


def _line(line: bytes) -> Line:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return NOT_UTF_8
