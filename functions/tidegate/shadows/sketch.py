"""The distribution of a number over many shadows, in bounded space and with exact merges, as all that is kept are counts.

`Sketch` is for numbers of any size that are not negative: DDSketch (https://arxiv.org/abs/1908.10693). `Grid` is for those from -1 to 1.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from ddsketch.ddsketch import BaseDDSketch
from ddsketch.mapping import LogarithmicMapping
from ddsketch.store import CollapsingLowestDenseStore

from tidegate.rules.bundle.json_values import INTEGER, NUMBER, POSITIVE, Kind, Record, UnfitError, array, or_none, pair

ACCURACY = 0.01
"""A quantile is within this share of the true one: part of the format, as bins are of it."""

MOST_BINS = 1024
"""Numbers below some 1e-9 of the largest share a bin."""

LARGEST = 1e300
"""A larger number counts as infinite."""

_CELLS = 1000
_LARGEST_KEY = 36_000
"""No double has a bin beyond this."""


class _Record(NamedTuple):
    """A sketch as it is stored: the counts of bins by their key, of zeros, and of infinite numbers."""

    bins: tuple[tuple[int, int], ...] = ()
    zeros: int = 0
    infinite: int = 0
    smallest: float | None = None
    largest: float | None = None


class Bin(NamedTuple):
    """Some numbers of a distribution: how many there are of about `value`."""

    value: float
    numbers: int


class Sketch:
    """Counts numbers that are not negative, and returns their quantiles within 1 %. Infinite ones are the largest."""

    def __init__(self) -> None:
        self._mapping = LogarithmicMapping(ACCURACY)
        self._store = CollapsingLowestDenseStore(MOST_BINS)
        self._finite = BaseDDSketch(self._mapping, self._store, CollapsingLowestDenseStore(MOST_BINS), 0)
        self.infinite = 0
        self.smallest = math.inf
        self.largest = -math.inf

    @property
    def count(self) -> int:
        return int(self._finite.count) + self.infinite

    def add(self, number: float) -> None:
        """Count a number, which is not NaN."""
        if number > LARGEST:
            self.infinite += 1
            return
        self._finite.add(number)
        self.smallest = min(self.smallest, number)
        self.largest = max(self.largest, number)

    def merge(self, other: Sketch) -> None:
        self._finite.merge(other._finite)
        self.infinite += other.infinite
        self.smallest = min(self.smallest, other.smallest)
        self.largest = max(self.largest, other.largest)

    def quantile(self, share: float) -> float | None:
        """Return the number at a share (0–1) of them in ascending order, rounded down; None if there is none."""
        if not self.count:
            return None
        rank, finite = math.floor(share * (self.count - 1)), self.count - self.infinite
        if rank >= finite:
            return math.inf
        if rank in (0, finite - 1):
            return self.largest if rank else self.smallest
        # In the middle of a rank, which rounding does not leave.
        value = self._finite.get_quantile_value((rank + 0.5) / (finite - 1))
        return min(max(float(value or 0.0), self.smallest), self.largest)

    def bins(self) -> Iterator[Bin]:
        """Yield the finite numbers in ascending order."""
        record = self._record()
        if record.zeros:
            yield Bin(0.0, record.zeros)
        for key, count in record.bins:
            yield Bin(self._mapping.value(key), count)

    def _record(self) -> _Record:
        if not self._finite.count:
            return _Record(infinite=self.infinite)
        bins = ((index + self._store.offset, int(count)) for index, count in enumerate(self._store.bins) if count)
        zeros = int(self._finite.count - self._store.count)
        return _Record(tuple(bins), zeros, self.infinite, self.smallest, self.largest)

    @classmethod
    def _of(cls, record: _Record) -> Sketch:
        made = cls()
        keys = [key for key, _ in record.bins]
        if len(keys) > MOST_BINS or keys != sorted(set(keys)) or any(abs(key) > _LARGEST_KEY for key in keys):
            raise UnfitError("a sketch has too many bins, bins that no number is in, or bins out of order")
        for key, count in record.bins:
            made._store.add(key, count)
        negative = CollapsingLowestDenseStore(MOST_BINS)
        made._finite = BaseDDSketch(made._mapping, made._store, negative, record.zeros)
        made.infinite = record.infinite
        if (record.smallest is None or record.largest is None) != (not made._finite.count):
            raise UnfitError("a sketch has numbers and no smallest and largest one, or the reverse")
        if record.smallest is not None and record.largest is not None:
            made.smallest, made.largest = record.smallest, record.largest
        return made


class Grid:
    """Counts numbers from -1 to 1, rounded to thousandths."""

    infinite = 0

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    @property
    def count(self) -> int:
        return self._counts.total()

    def add(self, number: float) -> None:
        self._counts[round(number * _CELLS)] += 1

    def merge(self, other: Grid) -> None:
        self._counts.update(other._counts)

    def quantile(self, share: float) -> float | None:
        """Return the number at a share (0–1) of them in ascending order, rounded down; None if there is none."""
        rank = math.floor(share * (self.count - 1))
        for value, numbers in self.bins():
            rank -= numbers
            if rank < 0:
                return value
        return None

    def bins(self) -> Iterator[Bin]:
        """Yield the numbers in ascending order."""
        for cell, numbers in sorted(self._counts.items()):
            yield Bin(cell / _CELLS, numbers)

    def _record(self) -> list[tuple[int, int]]:
        return sorted(self._counts.items())

    @classmethod
    def _of(cls, cells: tuple[tuple[int, int], ...]) -> Grid:
        made = cls()
        made._counts.update(dict(cells))
        if any(abs(cell) > _CELLS for cell in made._counts):
            raise UnfitError("a grid has a number that is not between -1 and 1")
        return made


Distribution = Sketch | Grid


def _count(value: Any) -> int:
    if (count := INTEGER.read(value)) < 0:
        raise UnfitError("below 0")
    return int(count)


COUNT = Kind(_count)
_BINS = array(pair(INTEGER, POSITIVE))
_RECORD = Record(
    _Record,
    bins=_BINS,
    zeros=COUNT,
    infinite=COUNT,
    smallest=or_none(NUMBER),
    largest=or_none(NUMBER),
)
SKETCH = Kind(lambda value: Sketch._of(_RECORD.read(value)), lambda sketch: _RECORD.write(sketch._record()))
"""How a sketch is written as JSON, and read."""

GRID = Kind(lambda value: Grid._of(_BINS.read(value)), lambda grid: [list(cell) for cell in grid._record()])
