"""The dimensions of an objective's bit index: one per attribute that its rules look at.

A dimension gives, for an attribute's value, the mask of the rows whose conditions on that attribute hold. It refuses a
value of the wrong type or outside the closed domain, and names the attribute.
"""

from __future__ import annotations

from typing import Any

from tidegate.errors import ContextError
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
            + (" that is none" if attribute.type == "version" and isinstance(value, str) else ""),
        )
    if not within(attribute, value):
        raise ContextError(attribute.name, f"attribute {attribute.name!r} must be {domain_words(attribute)}")


def missing(attribute: Attribute) -> ContextError:
    """The error for a required attribute that the context lacks."""
    return ContextError(
        attribute.name, f"attribute {attribute.name!r} is required ({EXPECTED[attribute.type]}) and is missing"
    )


class Dimension:
    """The masks of one attribute, by value.

    `fast` maps values of exactly `fast_type` to masks; `fast_other` is the mask of any other value of that type, or None
    where `mask` must be asked. `absent` is the mask of a request without the attribute, or None where it is required.
    """

    __slots__ = ("_closed", "_needs", "_pieces", "_slots", "_table", "absent", "attribute", "fast", "fast_other")

    def __init__(self, attribute: Attribute, data: dict[str, Any], count: int) -> None:
        self.attribute = attribute
        self._closed = attribute.values is not None
        kind = attribute.type
        self._table = MaskTable(data["table"], count, kind) if "table" in data else None
        self._pieces = PieceTable(data["pieces"], count, kind) if "pieces" in data else None
        self._slots = [(slot["operator"], int(slot["free"], 16), _Slot(slot, count)) for slot in data.get("slots", ())]
        self._needs = {key: int(mask, 16) for key, mask in data.get("needs", {}).items()}
        self.fast: dict[Any, int] = {}
        self.fast_other: int | None = None
        if self._table is not None and not self._slots and kind != "set":
            self.fast = self._table.dense
            # A number that no rule mentions may still be NaN, which only `mask` refuses.
            is_open = self._table.is_dense and not self._closed and kind != "number"
            self.fast_other = self._table.other if is_open else None
            if self._closed:
                self._fill_closed()
        self.absent: int | None = int(data["absent"], 16)
        if attribute.required:
            self.absent = None
        elif attribute.default is not None:
            self.absent = self.mask(attribute.default)

    def _fill_closed(self) -> None:
        self.fast = {value: self._of(value) for value in self.attribute.values or ()}

    @property
    def fast_type(self) -> type | None:
        """The exact Python type whose values `fast` may be asked for."""
        return PYTHON_TYPES.get(self.attribute.type)

    def mask(self, value: Any) -> int:
        """The mask of a present value.

        Raises:
            ContextError: the value is of the wrong type or outside the domain.
        """
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

    def __init__(self, data: dict[str, Any], count: int) -> None:
        self._table = MaskTable(data, count)
        self._lengths = sorted({len(key) for key in data["keys"]})

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
