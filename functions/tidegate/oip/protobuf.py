"""Reading and writing the top-level fields of a Protocol Buffers message, without its schema.

The wire format: https://protobuf.dev/programming-guides/encoding/. Where parsers differ, a message is refused rather than
read in one of the ways, since a server could read it in another.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tidegate.errors import malformed

VARINT: Final = 0
FIXED64: Final = 1
LENGTH: Final = 2
FIXED32: Final = 5

MOST_FIELDS: Final = 20_000
"""The most fields of a message that are read, nested ones included: some 10 ms of work."""

_LONGEST_VARINT_BYTES: Final = 10


class Reader:
    """Reads fields of one message and of messages nested in it.

    Args:
        message: the serialized message.
    """

    __slots__ = ("_left", "message")

    def __init__(self, message: bytes) -> None:
        self.message = message
        self._left = MOST_FIELDS

    def fields(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield number, wire type, start and end of the value of each field between two offsets.

        A length is not part of a value. A varint's value begins with its first byte.

        Raises:
            RefusedError: the bytes are not fields, hold a group, or there are more than `MOST_FIELDS`.
        """
        at = start
        while at < end:
            self._left -= 1
            if self._left < 0:
                raise malformed(f"the request has more than {MOST_FIELDS} fields")
            tag, at = self.varint(at, end)
            number, wire_type = tag >> 3, tag & 7
            if not 0 < number < 1 << 29:
                raise malformed(f"the request has a field with the number {number}, at byte {at}")
            value = at
            if wire_type == LENGTH:
                size, value = self.varint(at, end)
                at = value + size
            elif wire_type == VARINT:
                _, at = self.varint(at, end)
            elif wire_type == FIXED64:
                at += 8
            elif wire_type == FIXED32:
                at += 4
            else:
                raise malformed(f"the request has a field of wire type {wire_type}, at byte {at}; groups are not read")
            if at > end:
                raise malformed(f"the request ends within field {number}")
            yield number, wire_type, value, at

    def varint(self, start: int, end: int) -> tuple[int, int]:
        """Return an unsigned integer of up to 64 bits, and where it ends.

        Raises:
            RefusedError: it is longer than 64 bits, or not complete.
        """
        value, at = 0, start
        while at < end and at - start < _LONGEST_VARINT_BYTES:
            byte = self.message[at]
            value |= (byte & 0x7F) << 7 * (at - start)
            at += 1
            if byte < 0x80:
                if value >> 64:
                    break
                return value, at
        raise malformed(f"the request has a malformed number, at byte {start}")

    def text(self, start: int, end: int) -> str:
        """Return the text between two offsets.

        Raises:
            RefusedError: it is not UTF-8.
        """
        try:
            return self.message[start:end].decode()
        except UnicodeDecodeError:
            raise malformed(f"the request has a text that is not UTF-8, at byte {start}") from None


def signed(value: int) -> int:
    """Return the `int64` that an unsigned varint encodes."""
    return value - (1 << 64) if value >= 1 << 63 else value


def field(number: int, value: bytes) -> bytes:
    """Serialize a text, bytes or a nested message."""
    return _varint(number << 3 | LENGTH) + _varint(len(value)) + value


def number_field(number: int, value: int) -> bytes:
    """Serialize an integer that is not negative."""
    return _varint(number << 3 | VARINT) + _varint(value)


def _varint(value: int) -> bytes:
    found = bytearray()
    while value >= 0x80:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
