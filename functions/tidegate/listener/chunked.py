"""The decoder of chunked request bodies (RFC 9112 7.1, https://www.rfc-editor.org/rfc/rfc9112#section-7.1).

llhttp reads chunks too, but says neither where a message ends within what it was given nor how much its framing cost.
Nothing is lenient here: lines end in CRLF, sizes have up to 16 hexadecimal digits and no blanks around them.
"""

from __future__ import annotations

import re
from enum import IntEnum

from tidegate.listener.refusal import RefusalError

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*")
_LONGEST_LINE = 256
_FREE_FRAMING_BYTES = 16_384


class _Expected(IntEnum):
    SIZE = 0
    DATA = 1
    END_OF_DATA = 2
    TRAILER = 3


class ChunkedBody:
    """Takes a body as it arrives. Extensions and trailers are dropped.

    What frames the chunks may not exceed 16 KiB and the data together, so a body of tiny chunks, each of which costs as
    much work as a large one, is refused.
    """

    __slots__ = ("_data_bytes", "_expected", "_framing_bytes", "_left", "_line")

    def __init__(self) -> None:
        self._expected = _Expected.SIZE
        self._line = b""
        self._left = 0
        self._data_bytes = 0
        self._framing_bytes = 0

    def feed(self, data: bytes) -> tuple[list[bytes], int | None]:
        """Return the pieces of the body in `data`, and where in `data` the body ends (None: not in it).

        Raises:
            RefusalError: the framing is wrong or costs too much.
        """
        pieces: list[bytes] = []
        position = 0
        while position < len(data):
            if self._expected is _Expected.DATA:
                piece = data[position : position + self._left]
                pieces.append(piece)
                position += len(piece)
                self._left -= len(piece)
                self._data_bytes += len(piece)
                if not self._left:
                    self._expected = _Expected.END_OF_DATA
                continue
            position = self._read_line(data, position)
            if self._line.endswith(b"\r\n"):
                line, self._line = self._line[:-2], b""
                if self._ends_with(line):
                    return pieces, position
        return pieces, None

    def _read_line(self, data: bytes, position: int) -> int:
        """Add to the line what `data` has of it; return the position after that."""
        if self._line.endswith(b"\r"):
            end = position + 1
        else:
            found = data.find(b"\r\n", position, position + _LONGEST_LINE)
            end = found + 2 if found >= 0 else min(len(data), position + _LONGEST_LINE)
        self._line += data[position:end]
        self._framing_bytes += end - position
        if len(self._line) > _LONGEST_LINE:
            raise RefusalError(400, f"a line that frames a chunk exceeds {_LONGEST_LINE} bytes; send no extensions")
        if b"\n" in self._line and not self._line.endswith(b"\r\n"):
            raise RefusalError(400, "a chunk's line ends in LF alone; end it in CRLF")
        if self._framing_bytes > _FREE_FRAMING_BYTES + self._data_bytes:
            raise RefusalError(400, "the body's chunks are too small; send larger ones, or a Content-Length")
        return end

    def _ends_with(self, line: bytes) -> bool:
        """Take a line that frames; return whether it is the body's last."""
        if self._expected is _Expected.SIZE:
            match = _SIZE_LINE.fullmatch(line)
            if match is None:
                raise RefusalError(400, "a chunk's size is not 1 to 16 hexadecimal digits")
            self._left = int(match[1], 16)
            self._expected = _Expected.DATA if self._left else _Expected.TRAILER
            return False
        if self._expected is _Expected.END_OF_DATA:
            if line:
                raise RefusalError(400, "a chunk is longer than its size says")
            self._expected = _Expected.SIZE
            return False
        if line and not _TRAILER_LINE.fullmatch(line):
            raise RefusalError(400, "a trailer after the last chunk is not a header line")
        return not line
