"""Lines of text from a stream of bytes, in constant memory whatever the stream holds."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

LONGEST_LINE_BYTES = 1 << 20
BLOCK_BYTES = LONGEST_LINE_BYTES
"""How much is asked for at a time: no more than a line may have, so that only the first line of a block can be too long."""


class Stream(Protocol):
    """What bytes are read from."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes, none at the end."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands for a line, or for the rest of the stream, that is no text; says why."""

    reason: str


NOT_UTF_8 = Unreadable("not UTF-8")
TOO_LONG = Unreadable("longer than 1 MiB")
DAMAGED = Unreadable("the compression is damaged or cut off here; the rest was not read")

Line = str | Unreadable


def blocks(stream: Stream) -> Iterator[list[Line]]:
    """All lines in order, without their ends, as they come in from the stream: UTF-8 text, or why there is none.

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
