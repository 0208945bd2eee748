"""Sets of whole numbers as the bits of an integer: number `i` is bit `i`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

_WINDOW_BITS = 1024
_WINDOW = (1 << _WINDOW_BITS) - 1


def bitset(members: Iterable[int]) -> int:
    known = members if isinstance(members, list | tuple) else list(members)
    if len(known) < 8:
        made = 0
        for member in known:
            made |= 1 << member
        return made
    buffer = bytearray((max(known) >> 3) + 1)
    for member in known:
        buffer[member >> 3] |= 1 << (member & 7)
    return int.from_bytes(buffer, "little")


def members(bits: int) -> Iterator[int]:
    """Yield the numbers of a set, ascending."""
    offset = 0
    while bits:
        # Taking bits from a short integer is cheap, from a long one it is not.
        window = bits & _WINDOW
        while window:
            bit = window & -window
            yield offset + bit.bit_length() - 1
            window ^= bit
        bits >>= _WINDOW_BITS
        offset += _WINDOW_BITS


def lowest(bits: int) -> int:
    """Return the smallest number of a set; -1 if it is empty."""
    return (bits & -bits).bit_length() - 1


def between(start: int, end: int) -> int:
    """Return the numbers from `start` up to, but without, `end`."""
    return (1 << end) - (1 << start) if end > start else 0


def runs(bits: int) -> Iterator[tuple[int, int]]:
    """Yield the maximal ranges (start, end) of consecutive numbers, `end` outside."""
    # Searching the digits as text is ten times as fast as shifting a long integer.
    digits = bin(bits)[:1:-1]
    start = digits.find("1")
    while start >= 0:
        end = digits.find("0", start)
        if end < 0:
            end = len(digits)
        yield start, end
        start = digits.find("1", end)
