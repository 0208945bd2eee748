"""An independent part of a context, and its cases."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, Final, TypeVar

from tidegate.analysis.space.bits import members

T = TypeVar("T")

ABSENT: Final = 0
ANY: Final = 1
Marker = int | str
"""A sticky attribute as far as it is known: absent or empty (`ABSENT`), any value (`ANY`), or the text that is hashed."""

Markers = tuple[Marker, ...]
Cells = tuple[str | None, ...]
"""The cells that a context is allocated to, by experiment of callers."""

Known = tuple[Markers, Cells]


@dataclass(frozen=True, slots=True)
class Effect:
    """The effect of a case on a context, besides the rows that can still match.

    `refused` are the flags of the revisions that refuse it, `marker` and `cell` what it gives a sticky attribute or an
    allocation, `closes` other axes that mean nothing in it.
    """

    refused: int = 0
    marker: Marker | None = None
    cell: str | None = None
    closes: int = 0


MOST_FLIPS = 2_000_000
ROWS_PER_MASK = 8
"""Rows count as few if there are this many times more masks."""

Case = tuple[int, Effect]
"""The rows that can still match in a case, and its other effect."""

PLAIN: Final = Effect()


@dataclass(frozen=True, slots=True)
class Element:
    """An element that a context's set has."""

    text: str


class Cases:
    """Cases with integer weights; equal ones are merged."""

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
        """Yield what the cases leave of some rows, their other effects, and their weights."""
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
        return flips_of(self._masks, self._masks[0], MOST_FLIPS)

    def of(self, rows: int) -> dict[int, int]:
        left: dict[int, int] = {}
        if rows.bit_count() * ROWS_PER_MASK < len(self._masks) and self._flips is not None:
            cuts = {0, *(place for row in members(rows) for place in self._flips.get(row, ()))}
            sums = self._sums
            for start, end in pairwise([*sorted(cuts), len(self._masks)]):
                kept = rows & self._masks[start]
                left[kept] = left.get(kept, 0) + sums[end] - sums[start]
            return left
        for mask, weight in zip(self._masks, self._weights, strict=True):
            kept = rows & mask
            left[kept] = left.get(kept, 0) + weight
        return left


def flips_of(masks: Iterable[int], before: int, most: int) -> dict[int, list[int]] | None:
    """Return the places of masks at which each row's bit flips, beginning with that of `before`; None: they are more than `most`."""
    flips: dict[int, list[int]] = {}
    count = 0
    for place, mask in enumerate(masks):
        count += (before ^ mask).bit_count()
        if count > most:
            return None
        for row in members(before ^ mask):
            flips.setdefault(row, []).append(place)
        before = mask
    return flips


@dataclass(frozen=True, slots=True)
class Axis:
    """One independent part of a context.

    `cases` are given the sticky attributes, on which those of a layer depend; None where they are too many to list, and
    are only drawn. Their weights sum to `total`, and they are `size` at the most. `rows` look at the axis, `may_refuse` is
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

    def known_after(self, effect: Effect, keys: Markers, cells: Cells) -> Known:
        if self.key is not None and effect.marker is not None:
            keys = (*keys[: self.key], effect.marker, *keys[self.key + 1 :])
        if self.cell is not None:
            cells = (*cells[: self.cell], effect.cell, *cells[self.cell + 1 :])
        return keys, cells


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
    """Return an axis whose cases do not depend on other axes."""
    cases = Cases(weights)
    size, total, refuses = cases.size, cases.total, cases.may_refuse
    draw = cases.draw
    return Axis(
        name, size, total, lambda _: cases, lambda _, c: draw(c), rows, refuses, after, key, cell, samples or {}
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
    """Return an axis with cases that are sampled: each of `drawn` has their number and draws one of them."""
    pick = by_weight(
        {_always(case): weight for case, weight in listed.items()} | {draw: count for count, draw in drawn}
    )
    total = sum(listed.values()) + sum(count for count, _ in drawn)
    return Axis(name, 0, total, None, lambda _, chance: pick(chance)(chance), rows, may_refuse, key=key)


def _always(case: Case) -> Callable[[random.Random], Case]:
    return lambda _: case


def by_weight(weights: Mapping[T, int]) -> Callable[[random.Random], T]:
    """Return a function that draws by integer weights of any size."""
    choices, sums = list(weights), list(accumulate(weights.values()))
    return lambda chance: choices[bisect_right(sums, chance.randrange(sums[-1]))]
