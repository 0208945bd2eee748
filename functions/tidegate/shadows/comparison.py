"""Compares two answers, output by output. docs/shadows.md has the definitions."""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import eq
from typing import Any, NamedTuple

from tidegate.oip.datatypes import ELEMENT_BYTES, FLOATS
from tidegate.rules.contract import Ranking
from tidegate.shadows.tensors import Tensor

_INTEGERS = frozenset(ELEMENT_BYTES) - FLOATS - {"BOOL"}
RANKABLE = _INTEGERS | {"BYTES"}
"""The datatypes of an output that lists ids."""

MOST_ROWS = 65_536
"""Rankings of a batch that are compared, which takes half a second. Rows without an item need no bytes, so that a few bytes can declare
any number of them."""


class OutputComparison(NamedTuple):
    """One output in two answers.

    Attributes:
        datatypes: the primary's and the shadow's; None where the answer lacks the output.
        shapes_match: whether both have it, in the same shape.
        elements: how many were compared: all, or 0 where presence, shape or kind of datatype forbids it.
        equal: how many of them are equal.
        errors: the largest absolute and the largest relative error, where the elements are floating-point numbers.
    """

    datatypes: tuple[str | None, str | None]
    shapes_match: bool = False
    elements: int = 0
    equal: int = 0
    errors: tuple[float, float] | None = None

    @property
    def is_compared(self) -> bool:
        return self.shapes_match and _comparable(*self.datatypes)

    @property
    def is_identical(self) -> bool:
        primary, shadow = self.datatypes
        return self.is_compared and primary == shadow and self.equal == self.elements


class RankingComparison(NamedTuple):
    """How two rankings agree, as means over the rows of the batch; `tau` is None where no row has two common items."""

    overlap: float
    tau: float | None


def compare_outputs(primary: Mapping[str, Tensor], shadow: Mapping[str, Tensor]) -> Mapping[str, OutputComparison]:
    """Compare every output of two answers, by name."""
    return {
        name: _compare(primary.get(name), shadow.get(name))
        for name in (*primary, *(each for each in shadow if each not in primary))
    }


def compare_rankings(
    ranking: Ranking, primary: Mapping[str, Tensor], shadow: Mapping[str, Tensor]
) -> RankingComparison | None:
    """Compare the outputs that rank things; None where they are not two rankings of the same batch."""
    first, second = primary.get(ranking.output), shadow.get(ranking.output)
    rows = _row_count(first)
    if first is None or second is None or not 0 < rows <= MOST_ROWS or rows != _row_count(second):
        return None
    overlap, tau, ordered = 0.0, 0.0, 0
    for ours, theirs in zip(_rows(first, rows, ranking.k), _rows(second, rows, ranking.k), strict=True):
        common = [item for item in ours if item in theirs]
        longest = max(len(ours), len(theirs))
        overlap += len(common) / longest if longest else 1.0
        if len(common) > 1:
            tau += _tau([theirs[item] for item in common])
            ordered += 1
    return RankingComparison(overlap / rows, tau / ordered if ordered else None)


def _compare(primary: Tensor | None, shadow: Tensor | None) -> OutputComparison:
    datatypes = (primary and primary.datatype, shadow and shadow.datatype)
    if primary is None or shadow is None or primary.shape != shadow.shape:
        return OutputComparison(datatypes)
    if not _comparable(*datatypes):
        return OutputComparison(datatypes, shapes_match=True)
    elements = len(primary.values)
    if primary.datatype not in FLOATS:
        equal = sum(map(eq, primary.values, shadow.values))
        return OutputComparison(datatypes, True, elements, equal)
    if primary.raw is not None and primary.raw == shadow.raw and primary.datatype == shadow.datatype:
        return OutputComparison(datatypes, True, elements, elements, (0.0, 0.0))
    unequal, *errors = _errors(primary.values, shadow.values)
    return OutputComparison(datatypes, True, elements, elements - unequal, (errors[0], errors[1]))


def _comparable(primary: str | None, shadow: str | None) -> bool:
    """Return whether elements of two datatypes can be compared: widths of one kind of number may differ."""
    return primary == shadow is not None or any({primary, shadow} <= kind for kind in (FLOATS, _INTEGERS))


def _errors(primary: Iterable[float], shadow: Iterable[float]) -> tuple[int, float, float]:
    """Return how many numbers differ, and the largest absolute and relative errors."""
    unequal, largest, relative = 0, 0.0, 0.0
    for ours, theirs in zip(primary, shadow, strict=True):
        if ours == theirs:
            continue
        error = abs(ours - theirs)
        if error < math.inf:
            unequal += 1
            largest = max(largest, error)
            if error > relative * (scale := max(abs(ours), abs(theirs))):
                relative = error / scale
        elif ours == ours or theirs == theirs:  # else both are NaN
            unequal += 1
            largest = math.inf
            # Of two finite numbers only the difference is too large.
            is_finite = math.isfinite(ours) and math.isfinite(theirs)
            scale = max(abs(ours), abs(theirs))
            relative = max(relative, abs(ours / scale - theirs / scale)) if is_finite else math.inf
    return unequal, largest, relative


def _row_count(tensor: Tensor | None) -> int:
    """Return how many rankings a tensor has; 0 if it is none."""
    if tensor is None or not tensor.shape or tensor.datatype not in RANKABLE:
        return 0
    return math.prod(tensor.shape[:-1])


def _rows(tensor: Tensor, rows: int, k: int) -> Iterator[dict[Any, int]]:
    """Yield the place of each of the first `k` items, from 0, of one row after the other."""
    size = tensor.shape[-1]
    for row in range(rows):
        # An item that is there twice counts where it is first.
        items = dict.fromkeys(tensor.values[row * size : row * size + min(k, size)])
        yield {item: place for place, item in enumerate(items)}


def _tau(places: Sequence[int]) -> float:
    """Return Kendall's tau between the order of distinct places and ascending order."""
    passed: list[int] = []
    inversions = 0
    for place in places:
        inversions += len(passed) - bisect_right(passed, place)
        insort(passed, place)
    return 1 - 4 * inversions / (len(places) * (len(places) - 1))
