"""The axes of a number line and of time: conditions cut a line, and a class is what lies between two neighbouring cuts."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import reduce
from itertools import accumulate, count
from operator import and_, itemgetter, xor
from typing import Any

from tidegate.analysis.reach.axis import ABSENT, NO_KEY, AttributeAxis, Axis, Conditions, Owners
from tidegate.analysis.space.bits import between, bitset, members
from tidegate.analysis.space.values import Cut, cuts_of, values_of_piece
from tidegate.rules.conditions import Predicate, comparable
from tidegate.rules.contract import Attribute

ENUMERATED = 100_000
"""A piece of an integer that keys layers is taken apart by buckets up to this many numbers; a larger one is taken to hold
keys with any buckets."""


class OrderedAxis(Axis):
    """An axis whose classes are ordered, so that a condition holds on few runs of them."""

    def _begin_ordered(self, held: Sequence[int], size: int, universe: int) -> None:
        """Make the masks of `size` classes, of which those of `universe` can be, from the classes that each condition holds on."""
        self._held, self._universe = held, universe
        changes = [0] * (size + 1)
        changes[0] = self.free
        for mask, classes in zip(self.boxes, held, strict=True):
            for place in members(classes ^ classes << 1):
                changes[place] ^= mask
        self._begin(list(accumulate(changes[:size], xor)))

    def candidates(self, condition: int | None) -> int:
        return self._universe if condition is None else self._universe & self._held[condition]

    def inside(self, classes: int, box: int) -> int:
        condition = self.conditions.of_box.get(box)
        return classes if condition is None else classes & self._held[condition]


class LineAxis(OrderedAxis, AttributeAxis):
    """The axis of a version, or of a number with ordered conditions. Class 0 is the absent attribute."""

    def __init__(
        self, attribute: Attribute, conditions: Conditions, owners_of: Callable[[Any], Owners] | None = None
    ) -> None:
        super().__init__(conditions)
        self._attribute, self._owners_of = attribute, owners_of
        kind = attribute.type
        self._written: dict[Any, Any] = {}
        cuts: set[Cut] = set()
        for value, sides in (each for terms in conditions.distinct for term in terms for each in cuts_of(term)):
            key = comparable(kind, value)
            self._written.setdefault(key, value)
            cuts.update((key, side) for side in sides)
        self._domain = None
        if attribute.values is not None:
            self._domain = sorted({comparable(kind, value): value for value in attribute.values}.items())
        self._cuts = sorted(cuts)
        size = len(self._cuts) + 2
        self._check_size(size)
        exist = [number for number in range(1, size) if next(self.values(number), None) is not None]
        absent = 0 if attribute.required or attribute.default is not None else 1 << ABSENT
        held = [reduce(and_, (self._classes_of(term, size) for term in terms)) for terms in conditions.distinct]
        self._begin_ordered(held, size, bitset(exist) | absent)

    def values(self, number: int) -> Iterator[Any]:
        low = self._cuts[number - 2] if number > 1 else None
        high = self._cuts[number - 1] if number <= len(self._cuts) else None
        if self._domain is not None:
            start = 0 if low is None else self._place_in_domain(low)
            end = len(self._domain) if high is None else self._place_in_domain(high)
            found: Iterable[Any] = [value for _, value in self._domain[start:end]]
        else:
            found = values_of_piece(self._attribute.type, low, high, self._written)
        yield from _builds(found) if self._attribute.type == "version" else found

    def owners(self, number: int) -> Iterable[Owners | None]:
        if self.keyless >> number & 1:
            return (NO_KEY,)
        if self._owners_of is None or self._attribute.type == "version":
            return (None,)
        has_ends = 1 < number <= len(self._cuts)
        is_large = not has_ends or self._cuts[number - 1][0] - self._cuts[number - 2][0] > ENUMERATED
        if self._domain is None and is_large:
            return (None,)
        return {self._owners_of(value) for value in self.values(number)}

    def _place_in_domain(self, cut: Cut) -> int:
        """Return how many values of the closed domain are below a cut."""
        bisect = bisect_right if cut[1] else bisect_left
        return bisect(self._domain or [], cut[0], key=itemgetter(0))

    def _classes_of(self, term: Predicate, size: int) -> int:
        """Return the classes on which a condition holds."""
        match term.operator:
            case "present":
                return between(ABSENT + 1, size) if term.operand else 1 << ABSENT
            case "in":
                return bitset([self._after(value, 0) for value in term.operand])
            case "not":
                return between(ABSENT + 1, size) ^ bitset([self._after(value, 0) for value in term.operand])
            case "gt" | "gte" as operator:
                return between(self._after(term.operand, int(operator == "gt")), size)
            case operator:
                return between(ABSENT + 1, self._after(term.operand, int(operator == "lte")))

    def _after(self, value: Any, side: int) -> int:
        """Return the class that begins at a cut."""
        return bisect_left(self._cuts, (comparable(self._attribute.type, value), side)) + 2


def _builds(versions: Iterable[str]) -> Iterator[str]:
    """Yield versions, and then the same with build metadata: endlessly many texts of each, which hash differently."""
    known = list(versions)
    yield from known
    for number in count(1) if known else ():
        yield from (f"{version.partition('+')[0]}+{number}" for version in known)


class TimeAxis(OrderedAxis):
    """The axis of time. A condition is a window (start, end) in Unix seconds; None: no bound."""

    def __init__(self, conditions: Conditions, at: float) -> None:
        """Build the axis. `at`, in Unix seconds, is where what is over ends."""
        super().__init__(conditions)
        self.bounds = sorted({bound for window in conditions.distinct for bound in window if bound is not None})
        size = len(self.bounds) + 1
        self._check_size(size)
        held = [
            between(
                0 if start is None else bisect_left(self.bounds, start) + 1,
                size if end is None else bisect_left(self.bounds, end) + 1,
            )
            for start, end in conditions.distinct
        ]
        self._begin_ordered(held, size, between(0, size))
        self.past = between(0, sum(bound <= at for bound in self.bounds))
        """The classes that are over."""
