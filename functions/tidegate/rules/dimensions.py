"""The dimensions of an objective's bit index: one per attribute that its rules have conditions on.

A dimension gives, for an attribute's value, the mask of the rows whose conditions on that attribute hold. It refuses a
value of the wrong type or outside the closed domain, and names the attribute.
"""

from __future__ import annotations

from typing import Any

from tidegate.errors import ContextError
from tidegate.rules.bundle.tables import DimensionMasks, SlotMasks
from tidegate.rules.contract import Attribute
from tidegate.rules.masks import MaskTable, PieceTable
from tidegate.rules.values import EXPECTED, accepts, domain_words, type_name, version_key, within

MEMO_ENTRIES = 4096
MEMO_TEXT_LENGTH = 64

PYTHON_TYPES: dict[str, type] = {"string": str, "integer": int, "number": float, "boolean": bool, "version": str}


def check(attribute: Attribute, value: Any) -> None:
    """Refuse a value that is not of the attribute's type or outside its domain.

    Raises:
        ContextError: it is not; the message names the attribute and says what it must be, never the value.
    """
    if not accepts(attribute.type, value):
        raise ContextError(
            attribute.name,
            f"attribute {attribute.name!r} must be {EXPECTED[attribute.type]}, got {type_name(value)}"
            + (" that is not one" if attribute.type == "version" and isinstance(value, str) else ""),
        )
    if not within(attribute, value):
        raise ContextError(attribute.name, f"attribute {attribute.name!r} must be {domain_words(attribute)}")


def missing(attribute: Attribute) -> ContextError:
    return ContextError(
        attribute.name, f"attribute {attribute.name!r} is required ({EXPECTED[attribute.type]}) and is missing"
    )


def unchecked_type(attribute: Attribute) -> type | None:
    """Return the Python type whose every value fits an attribute, so that it needs no `check`; None where there is none."""
    if attribute.values is not None or attribute.type in ("number", "version"):
        return None
    return PYTHON_TYPES.get(attribute.type)


class Dimension:
    """The masks of one attribute, by value.

    `fast` maps values of exactly `fast_type` to masks; `fast_other` is the mask of any other value of that type, or None
    where `mask` must be asked, which may put the value into `fast`. `absent` is the mask of a request without the attribute,
    or None where it is required.
    """

    __slots__ = ("_needs", "_pieces", "_slots", "_table", "absent", "attribute", "fast", "fast_other", "fast_type")

    def __init__(self, attribute: Attribute, masks: DimensionMasks, count: int) -> None:
        kind = attribute.type
        self.attribute = attribute
        self.fast_type = PYTHON_TYPES.get(kind)
        self._table = None if masks.table is None else MaskTable(masks.table, count, kind)
        self._pieces = None if masks.pieces is None else PieceTable(masks.pieces, count, kind)
        self._slots = [(slot.operator, slot.free, _Slot(slot, count)) for slot in masks.slots]
        self._needs = masks.needs or {}
        self.fast: dict[Any, int] = {}
        self.fast_other: int | None = None
        if self._table is not None and not self._slots and kind != "set":
            if attribute.values is not None:
                self.fast = {value: self._of(value) for value in attribute.values}
            else:
                self.fast = self._table.dense
                # A number that no rule mentions may still be NaN, which only `mask` refuses.
                self.fast_other = self._table.other if self._table.is_dense and kind != "number" else None
        self.absent: int | None = masks.absent
        if attribute.required:
            self.absent = None
        elif attribute.default is not None:
            self.absent = self.mask(attribute.default)

    def mask(self, value: Any) -> int:
        """Return the mask of a present value, which is checked (see `check`)."""
        check(self.attribute, value)
        mask = self._of(value)
        if self._pieces is not None and (not isinstance(value, str) or len(value) <= MEMO_TEXT_LENGTH):
            if len(self.fast) >= MEMO_ENTRIES:
                self.fast.clear()
            self.fast[value] = mask
        return mask

    def _of(self, value: Any) -> int:
        if self._pieces is not None:
            return self._pieces.get(version_key(value) if self.attribute.type == "version" else value)
        if self._table is None:
            return -1
        if self.attribute.type == "set":
            return self._of_set(frozenset(value))
        mask = self._table.get(value)
        for operator, free, slot in self._slots:
            mask &= free | slot.affixes(value, operator == "prefix")
        return mask

    def _of_set(self, value: frozenset[str]) -> int:
        assert self._table is not None
        mask = self._table.other
        for _, free, slot in self._slots:
            mask &= free | slot.elements(value)
        lacking = 0
        for element, needing in self._needs.items():
            if element not in value:
                lacking |= needing
        return mask & ~lacking


class _Slot:
    """One predicate per row of the same kind, by its texts: which rows does a value satisfy?"""

    __slots__ = ("_lengths", "_table")

    def __init__(self, slot: SlotMasks, count: int) -> None:
        self._table = MaskTable(slot.table, count)
        self._lengths = sorted({len(key) for key in slot.table.keys})

    def affixes(self, value: str, at_start: bool) -> int:
        mask, size = 0, len(value)
        for length in self._lengths:
            if length > size:
                break
            mask |= self._table.get(value[:length] if at_start else value[size - length :])
        return mask

    def elements(self, value: frozenset[str]) -> int:
        mask = 0
        for element in value:
            mask |= self._table.get(element)
        return mask
