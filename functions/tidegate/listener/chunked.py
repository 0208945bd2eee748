"""The decoder of chunked request bodies (RFC 9112 7.1, https://www.rfc-editor.org/rfc/rfc9112#section-7.1).

llhttp decodes chunks too, but reports neither where in its input a message ends nor the size of the framing. This decoder
is strict: lines end in CRLF, and sizes have up to 16 hexadecimal digits without blanks around them.
"""

from __future__ import annotations

import re
from enum import IntEnum
from typing import Final

from tidegate.listener.refusal import RefusalError

_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t\x20-\x7e\x80-\xff]*)?")
_TRAILER_LINE: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e\x80-\xff]*")
_LONGEST_LINE: Final = 256
_FREE_FRAMING_BYTES: Final = 16_384


class _Expected(IntEnum):
    SIZE = 0
    DATA = 1
    END_OF_DATA = 2
    TRAILER = 3


class ChunkedBody:
    """Decodes a body as it arrives, dropping chunk extensions and trailers.

    The framing may take no more than 16 KiB plus the size of the data. This refuses bodies of tiny chunks, each of which
    costs as much work as a large one.
    """

    __slots__ = ("_data_bytes", "_expected", "_framing_bytes", "_left", "_line")

    def __init__(self) -> None:
        self._expected = _Expected.SIZE
        self._line = b""
        self._left = 0
        self._data_bytes = 0
        self._framing_bytes = 0

    def feed(self, data: bytes) -> tuple[list[bytes], int | None]:
        """Return the pieces of the body in `data`, and the offset in `data` at which the body ends, or None.

        Raises:
            RefusalError: the framing is malformed or takes too many bytes.
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
        """Append the part of the current line that `data` holds; return the position after it."""
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
        """Process a line of the framing; return whether it is the body's last."""
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
