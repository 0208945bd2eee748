"""Which boxes' prefixes and suffixes a text has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from tidegate.rules.analysis.axis import Conditions
from tidegate.rules.analysis.blocks import EVERY
from tidegate.rules.conditions import Row, holds

Affix = Literal["prefix", "suffix"]


class AffixMasks:
    """The boxes whose every prefix (or suffix) condition a text meets. A condition may hold several such terms, which are
    ANDed: the first of each condition goes to slot 0, the second to slot 1 …"""

    def __init__(self, conditions: Conditions, boxes: Sequence[int], operator: Affix) -> None:
        """Build the slots; `boxes` are the boxes that have each condition."""
        self._at_start = operator == "prefix"
        self.slots: list[tuple[int, dict[str, int]]] = []
        terms_of = [[term.operand for term in terms if term.operator == operator] for terms in conditions.distinct]
        for place in range(max(map(len, terms_of), default=0)):
            free = (1 << conditions.total) - 1
            table: dict[str, int] = {}
            for mask, operands in zip(boxes, terms_of, strict=True):
                if place < len(operands):
                    free ^= mask
                    for text in operands[place]:
                        table[text] = table.get(text, 0) | mask
            self.slots.append((free, table))
        texts = {text for _, table in self.slots for text in table}
        self._lengths = sorted({len(text) for text in texts})
        self.characters = frozenset("".join(texts))
        """The characters of all prefixes (or suffixes)."""

    def met(self, text: Any) -> int:
        """The boxes whose conditions a text meets (any value, where there are none)."""
        every = EVERY
        for free, table in self.slots:
            mask, size = free, len(text)
            for length in self._lengths:
                if length > size:
                    break
                mask |= table.get(text[:length] if self._at_start else text[size - length :], 0)
            every &= mask
        return every


def shortest(terms: Row, operator: Affix) -> list[str]:
    """Prefixes (or suffixes) with which a text meets all of some conditions; of those that any text has that meets them, one
    is among them."""
    wanted = [term for term in terms if term.operator == operator]
    if not wanted:
        return [""]
    texts = dict.fromkeys(text for term in wanted for text in term.operand)
    return [text for text in texts if all(holds(term.operator, term.operand, text) for term in wanted)]
