"""The axes of a number line and of time: conditions cut a line, and a class is what lies between two neighbouring cuts."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate, count
from operator import itemgetter, xor
from typing import Any

from tidegate.rules.analysis.axis import ABSENT, NO_KEY, AttributeAxis, Axis, Conditions, Owners
from tidegate.rules.analysis.bitsets import between, bitset
from tidegate.rules.analysis.samples import integers_between, number_between, version_between
from tidegate.rules.conditions import Predicate, comparable
from tidegate.rules.contract import Attribute

ENUMERATED = 100_000
"""A piece of an integer that keys layers is taken apart by buckets up to this many numbers; a larger one is taken to hold
keys with any buckets."""

MANY = 16

Cut = tuple[Any, int]
"""A place on a line: just below a value (its comparable form, 0) or just above it (its comparable form, 1)."""


Run = tuple[int, int]
"""Neighbouring classes: the first, and the one after the last."""


class RunsAxis(Axis):
    """An axis whose classes stand in an order; each condition holds on runs of them."""

    def _begin_runs(self, runs_of: Sequence[Sequence[Run]], size: int, universe: int) -> None:
        """Make the masks.

        Args:
            runs_of: the runs of classes on which each condition holds.
            size: how many classes there are.
            universe: the classes that can be.
        """
        self._runs, self._universe = runs_of, universe
        self._check_size(size)
        changes = [0] * (size + 1)
        changes[0] = self.free
        for mask, holding in zip(self.boxes, runs_of, strict=True):
            for start, end in holding:
                changes[start] ^= mask
                changes[end] ^= mask
        self._begin(list(accumulate(changes[:size], xor)))

    def candidates(self, condition: int | None) -> int:
        """All classes on which a condition holds."""
        return self._universe if condition is None else self._universe & _bits(self._runs[condition])

    def inside(self, classes: int, box: int) -> int:
        """Those of some classes that a box holds."""
        condition = self.conditions.of_box.get(box)
        return classes if condition is None else classes & _bits(self._runs[condition])


class LineAxis(RunsAxis, AttributeAxis):
    """The axis of a version, or of a number with ordered conditions. Class 0 is the absent attribute."""

    def __init__(
        self, attribute: Attribute, conditions: Conditions, owners_of: Callable[[Any], Owners] | None = None
    ) -> None:
        """Build the axis; the arguments are those of `ListedAxis`.

        Raises:
            TooManyClassesError: there are more classes than are looked at.
        """
        super().__init__(conditions)
        self._attribute, self._owners_of = attribute, owners_of
        kind = attribute.type
        self._written: dict[Any, Any] = {}
        cuts: set[Cut] = set()
        for terms in conditions.distinct:
            for term in terms:
                if term.operator == "present":
                    continue
                values = term.operand if isinstance(term.operand, tuple) else (term.operand,)
                sides = _SIDES.get(term.operator, (0, 1))
                for value in values:
                    key = comparable(kind, value)
                    self._written.setdefault(key, value)
                    cuts.update((key, side) for side in sides)
        self._domain = None
        if attribute.values is not None:
            self._domain = sorted({comparable(kind, value): value for value in attribute.values}.items())
        self._cuts = sorted(cuts)
        size = len(self._cuts) + 2
        exist = [number for number in range(1, size) if next(self.values(number), None) is not None]
        absent = 0 if attribute.required or attribute.default is not None else 1 << ABSENT
        runs_of = [self._runs_within(terms, size) for terms in conditions.distinct]
        self._begin_runs(runs_of, size, bitset(exist) | absent)

    def values(self, number: int) -> Iterator[Any]:
        """Values of a class."""
        low = self._cuts[number - 2] if number > 1 else None
        high = self._cuts[number - 1] if number <= len(self._cuts) else None
        if self._domain is not None:
            start = 0 if low is None else self._place_in_domain(low)
            end = len(self._domain) if high is None else self._place_in_domain(high)
            found: Iterable[Any] = [value for _, value in self._domain[start:end]]
        else:
            found = self._between(low, high)
        yield from self._builds(found) if self._attribute.type == "version" else found

    def owners(self, number: int) -> Iterable[Owners | None]:
        """Whose buckets the values of a class have; None: for any owners a value exists."""
        if self.keyless >> number & 1:
            return (NO_KEY,)
        if self._owners_of is None or self._attribute.type == "version" or self._is_large(number):
            return (None,)
        return {self._owners_of(value) for value in self.values(number)}

    def _place_in_domain(self, cut: Cut) -> int:
        """How many values of the closed domain are below a cut."""
        bisect = bisect_right if cut[1] else bisect_left
        return bisect(self._domain or [], cut[0], key=itemgetter(0))

    def _is_large(self, number: int) -> bool:
        if self._domain is not None:
            return False
        if not 1 < number <= len(self._cuts):
            return True
        return bool(self._cuts[number - 1][0] - self._cuts[number - 2][0] > ENUMERATED)

    def _between(self, low: Cut | None, high: Cut | None) -> Iterator[Any]:
        """Values between two cuts of an open line: the mentioned ones, then others."""
        ends = [low[0]] if low is not None and low[1] == 0 else []
        if high is not None and high[1] == 1 and high[0] not in ends:
            ends.append(high[0])
        yield from (self._written[key] for key in ends)
        below = None if low is None else self._written[low[0]]
        above = None if high is None else self._written[high[0]]
        if low is not None and high is not None and low[0] == high[0]:
            return
        match self._attribute.type:
            case "integer":
                yield from integers_between(below, above)
            case "version":
                found = version_between(below, above)
                yield from () if found is None else (found,)
            case _:
                other = number_between(below, above)
                yield from () if other is None else (other,)

    def _builds(self, versions: Iterable[str]) -> Iterator[str]:
        """Versions, and then the same with build metadata: endlessly many texts of each, which hash differently."""
        known = list(versions)
        yield from known
        for number in count(1) if known else ():
            yield from (f"{version.partition('+')[0]}+{number}" for version in known)

    def _runs_within(self, terms: Sequence[Predicate], size: int) -> list[Run]:
        allowed: list[Run] = [(ABSENT, size)]
        for term in terms:
            allowed = _both(allowed, self._runs_of(term, size))
        return allowed

    def _runs_of(self, term: Predicate, size: int) -> list[Run]:
        match term.operator:
            case "present":
                return [(1, size)] if term.operand else [(ABSENT, 1)]
            case "in":
                return _merged([(self._after(value, 0), self._after(value, 1)) for value in self._sorted(term)])
            case "not":
                found, start = [], 1
                for value in self._sorted(term):
                    found.append((start, self._after(value, 0)))
                    start = self._after(value, 1)
                return [(first, end) for first, end in [*found, (start, size)] if first < end]
            case "gt" | "gte" as operator:
                return [(self._after(term.operand, int(operator == "gt")), size)]
            case operator:
                return [(1, self._after(term.operand, int(operator == "lte")))]

    def _sorted(self, term: Predicate) -> list[Any]:
        kind = self._attribute.type
        return sorted(term.operand, key=lambda value: comparable(kind, value))

    def _after(self, value: Any, side: int) -> int:
        """The class that begins at a cut."""
        return bisect_left(self._cuts, (comparable(self._attribute.type, value), side)) + 2


class TimeAxis(RunsAxis):
    """The axis of time. A condition is a window (start, end) in Unix seconds, where None is no bound."""

    def __init__(self, conditions: Conditions, at: float) -> None:
        """Build the axis. `at`, in Unix seconds, is where what is over ends."""
        super().__init__(conditions)
        self.bounds = sorted({bound for window in conditions.distinct for bound in window if bound is not None})
        size = len(self.bounds) + 1
        runs_of = [
            [
                (
                    0 if start is None else bisect_left(self.bounds, start) + 1,
                    size if end is None else bisect_left(self.bounds, end) + 1,
                )
            ]
            for start, end in conditions.distinct
        ]
        self._begin_runs(runs_of, size, between(0, size))
        self.past = between(0, sum(bound <= at for bound in self.bounds))
        """The classes that are over."""

    def start_of(self, number: int) -> float | None:
        """The first moment of a class in Unix seconds; None: it has none."""
        return self.bounds[number - 1] if number else None


def _bits(ranges: Sequence[Run]) -> int:
    if len(ranges) > MANY:
        return bitset([number for start, end in ranges for number in range(start, end)])
    made = 0
    for start, end in ranges:
        made |= between(start, end)
    return made


_SIDES = {"gte": (0,), "lt": (0,), "gt": (1,), "lte": (1,)}


def _both(left: Sequence[Run], right: Sequence[Run]) -> list[Run]:
    """What is in runs of both."""
    found, i, j = [], 0, 0
    while i < len(left) and j < len(right):
        start, end = max(left[i][0], right[j][0]), min(left[i][1], right[j][1])
        if start < end:
            found.append((start, end))
        if left[i][1] < right[j][1]:
            i += 1
        else:
            j += 1
    return found


def _merged(ranges: Sequence[Run]) -> list[Run]:
    """Ascending runs without two that touch."""
    found: list[Run] = []
    for start, end in ranges:
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found
