"""Bit masks over an objective's rows, looked up by an attribute's value.

Row 0 has the highest bit, so that the first row left in a mask of `n` rows is `n - mask.bit_length()`. A table is either
dense (one mask per value, written as hexadecimal) or sparse (the rows in which a value's mask differs from its
neighbour's), so that an allow-list of thousands of values over thousands of rules stays small; a sparse mask is built on
first use and a bounded number of them is remembered.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from typing import Any, Final

from tidegate.rules.bundle.tables import PieceMasks, ValueMasks
from tidegate.rules.contract import AttributeType
from tidegate.rules.values import version_key

MEMO_BITS: Final = 64 * 1024 * 1024
"""Most mask bits that one sparse table caches (8 MiB)."""

CHECKPOINT_PIECES: Final = 64
"""Pieces between two masks that a sparse `PieceTable` keeps, once they were used."""


def bits(rows: Iterable[int], count: int) -> int:
    """Return the mask that has exactly these rows of `count` set."""
    buffer = bytearray((count + 7) // 8)
    for row in rows:
        position = count - 1 - row
        buffer[position >> 3] |= 1 << (position & 7)
    return int.from_bytes(buffer, "little")


class MaskTable:
    """Masks by value: `get(value)` for a value that the rules mention, `other` for any value that they do not.

    `dense` has every value that the rules mention if `is_dense`, else those that were asked for.
    """

    __slots__ = ("_count", "_limit", "_sparse", "dense", "is_dense", "other")

    def __init__(self, table: ValueMasks, count: int, kind: AttributeType = "string") -> None:
        self._count = count
        self._limit = max(16, MEMO_BITS // max(1, count))
        self.other = table.other
        keys = [version_key(key) for key in table.keys] if kind == "version" else table.keys
        self.dense: dict[Any, int] = {}
        self._sparse: dict[Any, Sequence[int]] = {}
        if table.masks is not None:
            self.dense = dict(zip(keys, table.masks, strict=True))
        else:
            self._sparse = dict(zip(keys, table.flips, strict=True))
        self.is_dense = not self._sparse

    def get(self, value: Any) -> int:
        """Return the mask of a value."""
        mask = self.dense.get(value)
        if mask is not None:
            return mask
        flips = self._sparse.get(value)
        if flips is None:
            return self.other
        if len(self.dense) >= self._limit:
            self.dense.clear()
        self.dense[value] = mask = self.other ^ bits(flips, self._count)
        return mask


class PieceTable:
    """Masks by the position of a value among sorted thresholds: below, at or above each. Sparse ones are cached."""

    __slots__ = ("_base", "_checkpoints", "_count", "_flips", "_limit", "_masks", "_memo", "_thresholds")

    def __init__(self, table: PieceMasks, count: int, kind: AttributeType = "integer") -> None:
        self._count = count
        self._limit = max(16, MEMO_BITS // max(1, count))
        self._thresholds = [version_key(text) for text in table.thresholds] if kind == "version" else table.thresholds
        self._masks, self._base, self._flips = table.masks, table.base or 0, table.flips
        self._checkpoints: list[int] = []
        self._memo: dict[int, int] = {}

    def get(self, value: Any) -> int:
        """Return the mask of the piece that `value` lies in."""
        piece = bisect_left(self._thresholds, value) + bisect_right(self._thresholds, value)
        return self._masks[piece] if self._masks else self._sparse(piece)

    def next_after(self, value: Any) -> Any:
        """Return the first threshold above `value`; None above all of them."""
        place = bisect_right(self._thresholds, value)
        return self._thresholds[place] if place < len(self._thresholds) else None

    def _sparse(self, piece: int) -> int:
        mask = self._memo.get(piece)
        if mask is None:
            checkpoints = self._checkpoints or self._make_checkpoints()
            start = piece // CHECKPOINT_PIECES
            mask = checkpoints[start] ^ self._between(start * CHECKPOINT_PIECES, piece)
            if len(self._memo) >= self._limit:
                self._memo.clear()
            self._memo[piece] = mask
        return mask

    def _make_checkpoints(self) -> list[int]:
        made = [self._base]
        for start in range(0, len(self._flips) + 1 - CHECKPOINT_PIECES, CHECKPOINT_PIECES):
            made.append(made[-1] ^ self._between(start, start + CHECKPOINT_PIECES))
        self._checkpoints = made
        return made

    def _between(self, start: int, end: int) -> int:
        odd: set[int] = set()
        for flips in self._flips[start:end]:
            odd.symmetric_difference_update(flips)
        return bits(odd, self._count)
