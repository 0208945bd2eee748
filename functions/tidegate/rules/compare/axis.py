"""One independent part of a context, and its cases."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, Final, TypeVar

T = TypeVar("T")

ABSENT: Final = 0
ANY: Final = 1
Marker = int | str
"""What is known of a sticky attribute: absent or empty (`ABSENT`), any value (`ANY`), or the text that is hashed."""

Markers = tuple[Marker, ...]


@dataclass(frozen=True, slots=True)
class Effect:
    """What a case says of a context beside the rows that it leaves.

    `refused` are the flags of the revisions that refuse it, `marker` and `cell` what it says of a sticky attribute or of an
    allocation, `closes` other axes that mean nothing in it.
    """

    refused: int = 0
    marker: Marker | None = None
    cell: str | None = None
    closes: int = 0


MOST_FLIPS = 2_000_000
ROWS_PER_MASK = 8
"""So many times fewer rows than masks are few."""

Case = tuple[int, Effect]
"""The rows that a case leaves, and what else it says."""

PLAIN: Final = Effect()


@dataclass(frozen=True, slots=True)
class Element:
    """An element that a context's set has."""

    text: str


_WINDOW_BITS = 1024
_WINDOW = (1 << _WINDOW_BITS) - 1


class Cases:
    """Cases by their whole weights; those that are alike are one."""

    def __init__(self, weights: Mapping[Case, int]) -> None:
        self.size, self.total = len(weights), sum(weights.values())
        self.may_refuse = any(effect.refused for _, effect in weights)
        self.draw = by_weight(weights)
        by_effect: dict[Effect, tuple[list[int], list[int]]] = {}
        for (rows, effect), weight in weights.items():
            masks, shares = by_effect.setdefault(effect, ([], []))
            masks.append(rows)
            shares.append(weight)
        self._runs = {effect: _Runs(masks, shares) for effect, (masks, shares) in by_effect.items()}

    def of(self, rows: int) -> Iterator[tuple[int, Effect, int]]:
        """What the cases leave of some rows, what else they say, and their weights."""
        for effect, runs in self._runs.items():
            for left, weight in runs.of(rows).items():
                yield left, effect, weight


class _Runs:
    """Masks in an order in which neighbours differ little: a row's bit flips between a few of them only.

    For few rows the masks are then looked at where one of these rows flips, and not one by one.
    """

    def __init__(self, masks: list[int], weights: list[int]) -> None:
        self._masks, self._weights = masks, weights

    @cached_property
    def _sums(self) -> list[int]:
        return [0, *accumulate(self._weights)]

    @cached_property
    def _flips(self) -> dict[int, list[int]] | None:
        """The places at which each row's bit flips; None where they are too many to be worth it."""
        flips: dict[int, list[int]] = {}
        count = 0
        for place, (before, mask) in enumerate(pairwise(self._masks), 1):
            count += (before ^ mask).bit_count()
            if count > MOST_FLIPS:
                return None
            for row in places(before ^ mask):
                flips.setdefault(row, []).append(place)
        return flips

    def of(self, rows: int) -> dict[int, int]:
        """What is left of some rows, by weight."""
        left: dict[int, int] = {}
        if rows.bit_count() * ROWS_PER_MASK < len(self._masks) and self._flips is not None:
            cuts = {0, *(place for row in places(rows) for place in self._flips.get(row, ()))}
            sums = self._sums
            for start, end in pairwise([*sorted(cuts), len(self._masks)]):
                kept = rows & self._masks[start]
                left[kept] = left.get(kept, 0) + sums[end] - sums[start]
            return left
        for mask, weight in zip(self._masks, self._weights, strict=True):
            kept = rows & mask
            left[kept] = left.get(kept, 0) + weight
        return left


def places(mask: int) -> Iterator[int]:
    """The places of a mask's bits, the lowest first."""
    offset = 0
    while mask:
        # The short ends of a wide mask are cheap to take bits from.
        end = mask & _WINDOW
        while end:
            lowest = end & -end
            yield offset + lowest.bit_length() - 1
            end ^= lowest
        mask >>= _WINDOW_BITS
        offset += _WINDOW_BITS


@dataclass(frozen=True, slots=True)
class Axis:
    """One independent part of a context.

    `cases` are given the sticky attributes, on which those of a layer depend; None where they are too many to list, and
    are only drawn. Their weights sum to `total`, and they are `size` at the most. `rows` look at the axis, `may_refuse` tells
    whether a case refuses, `after` are axes that must be closed first, `key` and `cell` the places in a state that it fills.
    `samples` has for cases the attribute and a value that is one: None where it is absent, an `Element` that is in a set.
    """

    name: str
    size: int
    total: int
    cases: Callable[[Markers], Cases] | None
    draw: Callable[[Markers, random.Random], Case]
    rows: int
    may_refuse: bool = False
    after: int = 0
    key: int | None = None
    cell: int | None = None
    samples: Mapping[Case, tuple[str, Any]] = field(default_factory=dict)


def listed_axis(
    name: str,
    weights: Mapping[Case, int],
    rows: int,
    *,
    after: int = 0,
    key: int | None = None,
    cell: int | None = None,
    samples: Mapping[Case, tuple[str, Any]] | None = None,
) -> Axis:
    """An axis with cases that depend on nothing."""
    cases = Cases(weights)
    return Axis(
        name,
        cases.size,
        cases.total,
        lambda _: cases,
        lambda _, chance: cases.draw(chance),
        rows,
        cases.may_refuse,
        after,
        key,
        cell,
        samples or {},
    )


def drawn_axis(
    name: str,
    listed: Mapping[Case, int],
    drawn: Sequence[tuple[int, Callable[[random.Random], Case]]],
    rows: int,
    *,
    may_refuse: bool,
    key: int | None,
) -> Axis:
    """An axis of which some cases are drawn; each of `drawn` is how many they are and draws one of them."""
    pick = by_weight(
        {_always(case): weight for case, weight in listed.items()} | {draw: count for count, draw in drawn}
    )
    total = sum(listed.values()) + sum(count for count, _ in drawn)
    return Axis(name, 0, total, None, lambda _, chance: pick(chance)(chance), rows, may_refuse, key=key)


def _always(case: Case) -> Callable[[random.Random], Case]:
    return lambda _: case


def by_weight(weights: Mapping[T, int]) -> Callable[[random.Random], T]:
    """Draws by whole weights, however large."""
    choices, sums = list(weights), list(accumulate(weights.values()))
    return lambda chance: choices[bisect_right(sums, chance.randrange(sums[-1]))]
