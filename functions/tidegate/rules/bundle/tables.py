"""The line of an objective's index: masks of the rows whose conditions hold, by a context's values.

A row is a rule, or one of several of a rule with alternatives (`any_of`). Row 0 has the highest bit of a mask. In JSON a
mask is hexadecimal text. Small tables have masks; large ones have `flips`, the rows in which a mask differs from the one
before it (a `PieceMasks`) or from `other` (a `ValueMasks`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tidegate.rules.bundle.json_values import ANYTHING, Kind, Record, UnfitError, array, encode, table

Flips = Sequence[Sequence[int]]


class ValueMasks(NamedTuple):
    """The masks of the values that rules mention, in the order of `keys`; `other` is that of any other value."""

    other: int
    keys: Sequence[Any]
    masks: Sequence[int] | None = None
    flips: Flips = ()


class PieceMasks(NamedTuple):
    """The masks of the pieces that `k` sorted thresholds cut a line into: `2k + 1`, of which piece `2i + 1` is threshold
    `i` itself. With `flips`, `base` is the mask of the first piece."""

    thresholds: Sequence[Any]
    masks: Sequence[int] | None = None
    base: int | None = None
    flips: Flips = ()


class SlotMasks(NamedTuple):
    """One condition per row of an operator that looks at a part of a value (an affix, an element of a set): the masks of the
    texts that are parts. `free` are the rows without such a condition."""

    operator: str
    free: int
    table: ValueMasks


class DimensionMasks(NamedTuple):
    """The tables of one attribute. `absent` is the mask of a request without it, and `needs` has the rows that need each
    element of a set; None where the attribute is not a set."""

    absent: int
    table: ValueMasks | None = None
    pieces: PieceMasks | None = None
    slots: Sequence[SlotMasks] = ()
    needs: Mapping[str, int] | None = None


class LayerMasks(NamedTuple):
    """The masks of a layer's buckets; `free` are the rows that run no experiment of it."""

    pieces: PieceMasks
    free: int


class AllocationMasks(NamedTuple):
    """The masks of the cells that callers allocate, by experiment; `free` are the rows without such an experiment."""

    cells: Mapping[str, Mapping[str, int]]
    free: int


class IndexMasks(NamedTuple):
    """The index of an objective with `rules` rules. `rule_of_row` is None where every rule has one row."""

    rows: int
    rules: int
    dimensions: Mapping[str, DimensionMasks]
    layers: Mapping[str, LayerMasks]
    rule_of_row: Sequence[int] | None = None
    windows: PieceMasks | None = None
    allocated: AllocationMasks | None = None


def encode_tables(index: IndexMasks) -> bytes:
    return encode(_INDEX.write(index))


def decode_tables(line: bytes) -> IndexMasks:
    """Return the index of a line. Masks are not looked into."""
    index = _INDEX.read(json.loads(line))
    rows = index.rule_of_row
    are_of_rules = rows is None or 0 <= min(rows) <= max(rows) < index.rules
    if index.rows != (index.rules if rows is None else len(rows)) or not are_of_rules:
        raise UnfitError("its rows are not of its rules")
    return index


def _pieces(value: Any) -> PieceMasks:
    pieces = _PIECE_MASKS.read(value)
    count = len(pieces.flips) + 1 if pieces.masks is None else len(pieces.masks)
    if count != 2 * len(pieces.thresholds) + 1:
        raise UnfitError("pieces and thresholds do not fit together")
    return pieces


def _dimension_json(masks: DimensionMasks) -> dict[str, Any]:
    # That of a set has its slots even where there are none.
    return ({} if masks.needs is None else {"slots": []}) | _DIMENSION.write(masks)


_MASK = Kind(lambda text: int(text, 16), lambda mask: f"{mask:x}")
_MASKS = Kind(lambda texts: [int(text, 16) for text in texts], lambda masks: [f"{mask:x}" for mask in masks])
_VALUES = Record(ValueMasks, other=_MASK, keys=ANYTHING, masks=_MASKS, flips=ANYTHING)
_PIECE_MASKS = Record(PieceMasks, thresholds=ANYTHING, masks=_MASKS, base=_MASK, flips=ANYTHING)
_PIECES = Kind(_pieces, _PIECE_MASKS.write)
_SLOT = Record(SlotMasks, inlined=("table", _VALUES), operator=ANYTHING, free=_MASK)
_DIMENSION = Record(DimensionMasks, absent=_MASK, table=_VALUES, pieces=_PIECES, slots=array(_SLOT), needs=table(_MASK))
_INDEX = Record(
    IndexMasks,
    rows=ANYTHING,
    rules=ANYTHING,
    dimensions=table(Kind(_DIMENSION.read, _dimension_json)),
    layers=table(Record(LayerMasks, pieces=_PIECES, free=_MASK)),
    rule_of_row=ANYTHING,
    windows=_PIECES,
    allocated=Record(AllocationMasks, cells=table(table(_MASK)), free=_MASK),
)
