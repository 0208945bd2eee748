"""Recorded contexts: JSON lines, read from a stream in constant memory.

A line is `{"objective": "…", "context": {…}, "at": …, "allocations": {…}}`, of which `at` (Unix seconds, or ISO 8601, UTC
where it has no offset) and `allocations` (the caller's cells, as in a case file) are optional; other keys are ignored.
Where a default objective is given, a line may leave `objective` out; one with neither `objective` nor `context` is itself
the context.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

from tidegate.rules.replay.lines import Stream, Unreadable, blocks
from tidegate.rules.strict_json import DuplicateNameError, NotFiniteError, refuse_constant, unique_names
from tidegate.rules.times import EARLIEST, LATEST, parse_time

Record = tuple[int, str | None, Any, float | None]
"""(line number from 1, objective, context, moment); a line that is none has no objective, and says why instead."""

_NANOSECONDS_END = LATEST * 1e9

_SPACE = " \t\r\n\ufeff"
"""JSON's white space, and the byte order mark that some programs write."""


def records(
    stream: Stream, objective: str | None = None, on_block: Callable[[], None] | None = None
) -> Iterator[Record]:
    """Every record of a log; blank lines are skipped.

    Args:
        stream: of bytes, UTF-8.
        objective: the objective of lines that name none.
        on_block: called after each MiB or less.
    """
    number = 0
    decode = json.JSONDecoder(parse_constant=refuse_constant, object_pairs_hook=unique_names).raw_decode
    for lines in blocks(stream):
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
            try:
                context, name, at = value["context"], value["objective"], value.get("at")
            except (KeyError, TypeError, AttributeError):
                yield _loosely(number, value, objective)
                continue
            if context.__class__ is not dict or name.__class__ is not str or "allocations" in value:
                yield _loosely(number, value, objective)
                continue
            if at is not None:
                try:
                    at = moment(at)
                except ValueError:
                    yield number, None, _no_time(at), None
                    continue
            yield number, name, context, at
        if on_block is not None:
            on_block()


def _no_time(value: Any) -> str:
    """Why a value is not a time. It is not repeated: it may be personal data in the wrong place."""
    if isinstance(value, int | float) and not isinstance(value, bool) and LATEST < value < _NANOSECONDS_END:
        return "`at` is not a time: it is after the year 9999 in Unix seconds; divide milliseconds by 1000"
    return "`at` is not a time: neither ISO 8601 nor Unix seconds"


def _slowly(number: int, line: str, objective: str | None) -> Record:
    """The record of a line that could not be decoded as it stands."""
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
    return _loosely(number, value, objective)


def _loosely(number: int, value: Any, objective: str | None) -> Record:
    """The record of a value that is not of the plainest form."""
    if not isinstance(value, dict):
        return number, None, "not a JSON object", None
    if objective is not None and "context" not in value and "objective" not in value:
        return number, objective, value, None
    context, name, allocations = value.get("context"), value.get("objective"), value.get("allocations")
    if not isinstance(context, dict):
        return number, None, "no `context`" if context is None else "`context` is not an object", None
    if name is None:
        name = objective
    if not isinstance(name, str):
        return number, None, "no `objective`" if name is None else "`objective` is not text", None
    if allocations is not None:
        if "allocations" in context:
            return number, None, "`allocations` are both in the line and in its context", None
        context["allocations"] = allocations
    try:
        return number, name, context, None if value.get("at") is None else moment(value["at"])
    except ValueError:
        return number, None, _no_time(value["at"]), None


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
