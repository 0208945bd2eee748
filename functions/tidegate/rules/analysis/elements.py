"""The axis of a `set` attribute.

Its conditions only ever want elements, so a larger set is held by more boxes: of the sets that meet a condition, only the
smallest are worth looking at. Class 0 is the absent attribute; every other class is one set of mentioned elements.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, product

from tidegate.rules.analysis.axis import ABSENT, AttributeAxis, Conditions, Owners, TooManyClassesError
from tidegate.rules.conditions import Predicate
from tidegate.rules.contract import Attribute

MAX_SETS = 10_000
"""A condition with more smallest sets than this (several `contains_any` of many elements) is not looked at."""

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
        self._slots: list[tuple[int, dict[str, int]]] = []
        for number, terms in enumerate(conditions.distinct):
            if _wants_absence(terms):
                if all(term.operator == "present" and not term.operand for term in terms):
                    absent |= self.boxes[number]
                continue
            self._of_any |= self.boxes[number]
            needed = frozenset(text for term in terms if term.operator == "contains_all" for text in term.operand)
            self._needing[needed] = self._needing.get(needed, 0) | self.boxes[number]
            for place, operand in enumerate(_any_lists(terms)):
                self._in_slot(place, operand, self.boxes[number])
        self._begin([absent])

    def candidates(self, condition: int | None) -> int:
        """The classes worth looking at within a condition: the smallest sets.

        Raises:
            TooManyClassesError: there are more than are looked at.
        """
        terms = () if condition is None else self.conditions.distinct[condition]
        absent = 1 << ABSENT if self._may_be_absent and not terms else 0
        if _wants_absence(terms):
            only_absence = all(term.operator == "present" and not term.operand for term in terms)
            return 1 << ABSENT if self._may_be_absent and only_absence else 0
        found = absent
        for elements in _smallest(terms):
            found |= 1 << self._class_of(elements)
        return found

    def owners(self, number: int) -> Iterable[Owners | None]:  # noqa: ARG002
        """A set keys no layer."""
        return (None,)

    def values(self, number: int) -> Iterator[list[str]]:
        """The one set of a class."""
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

    def _in_slot(self, place: int, operand: Sequence[str], mask: int) -> None:
        while place >= len(self._slots):
            self._slots.append(((1 << self.conditions.total) - 1, {}))
        free, table = self._slots[place]
        self._slots[place] = (free ^ mask, table)
        for element in operand:
            table[element] = table.get(element, 0) | mask

    def _needing_within(self, elements: Elements) -> int:
        """The boxes that need no other elements than these."""
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


def _wants_absence(terms: Sequence[Predicate]) -> bool:
    return any(term.operator == "present" and not term.operand for term in terms)


def _any_lists(terms: Sequence[Predicate]) -> list[tuple[str, ...]]:
    return [term.operand for term in terms if term.operator == "contains_any"]


def _smallest(terms: Sequence[Predicate]) -> list[Elements]:
    """The sets that meet conditions and of which no part meets them, and perhaps a few larger ones."""
    needed = frozenset(text for term in terms if term.operator == "contains_all" for text in term.operand)
    lists = [operand for operand in _any_lists(terms) if needed.isdisjoint(operand)]
    count = 1
    for operand in lists:
        count *= len(operand)
    if count > MAX_SETS:
        raise TooManyClassesError
    return list(dict.fromkeys(needed.union(chosen) for chosen in product(*lists)))
