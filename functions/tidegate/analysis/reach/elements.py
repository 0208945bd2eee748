"""The axis of a `set` attribute.

Its conditions only ever want elements, so a larger set is held by more boxes: of the sets that meet a condition, only the
smallest are worth looking at. Class 0 is the absent attribute; every other class is one set of mentioned elements.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations

from tidegate.analysis.reach.axis import ABSENT, AttributeAxis, Conditions, Owners, TooManyClassesError, slots
from tidegate.analysis.space.bits import bitset
from tidegate.analysis.space.values import allows_absence, smallest_sets, wants_absence
from tidegate.rules.contract import Attribute

MAX_SETS = 10_000
"""Most smallest sets of a condition that is analysed; several `contains_any` of many elements have more."""

FEW = 8
"""The subsets of a set of up to so many elements are looked up; of a larger one, all conditions are gone through."""

Elements = frozenset[str]


class SetAxis(AttributeAxis):
    """The axis of a `set` attribute; the arguments are those of `ListedAxis`."""

    def __init__(self, attribute: Attribute, conditions: Conditions) -> None:
        super().__init__(conditions)
        self._may_be_absent = not attribute.required and attribute.default is None
        self._sets: list[Elements] = [frozenset()]
        self._number_of: dict[Elements, int] = {}
        absent = self.free
        self._of_any = self.free
        self._needing: dict[Elements, int] = {}
        wanted: list[list[Sequence[str]]] = [[] for _ in conditions.distinct]
        for number, terms in enumerate(conditions.distinct):
            if wants_absence(terms):
                if allows_absence(terms):
                    absent |= self.boxes[number]
                continue
            self._of_any |= self.boxes[number]
            needed = frozenset(text for term in terms if term.operator == "contains_all" for text in term.operand)
            self._needing[needed] = self._needing.get(needed, 0) | self.boxes[number]
            wanted[number] = [term.operand for term in terms if term.operator == "contains_any"]
        self._slots = slots(conditions, self.boxes, wanted)
        self._begin([absent])

    def candidates(self, condition: int | None) -> int:
        terms = () if condition is None else self.conditions.distinct[condition]
        absent = 1 << ABSENT if self._may_be_absent and not terms else 0
        if wants_absence(terms):
            return 1 << ABSENT if self._may_be_absent and allows_absence(terms) else 0
        smallest = smallest_sets(terms, MAX_SETS)
        if smallest is None:
            raise TooManyClassesError
        return absent | bitset([self._class_of(elements) for elements in smallest])

    def owners(self, number: int) -> Iterable[Owners | None]:  # noqa: ARG002
        return (None,)

    def values(self, number: int) -> Iterator[list[str]]:
        yield sorted(self._sets[number])

    def _late_mask(self, number: int) -> int:
        elements = self._sets[number]
        mask = self.free | self._needing_within(elements)
        for free, table in self._slots:
            met = free
            for element in elements:
                met |= table.get(element, 0)
            mask &= met
        return mask & self._of_any

    def _class_of(self, elements: Elements) -> int:
        number = self._number_of.get(elements)
        if number is None:
            number = self._number_of[elements] = len(self._sets)
            self._sets.append(elements)
        return number

    def _needing_within(self, elements: Elements) -> int:
        """Return the boxes that need no other elements than these."""
        mask = 0
        if len(elements) <= FEW:
            for size in range(len(elements) + 1):
                for some in combinations(elements, size):
                    mask |= self._needing.get(frozenset(some), 0)
        else:
            for needed, boxes in self._needing.items():
                if needed <= elements:
                    mask |= boxes
        return mask
