"""The bucket of a layer as an axis: over all 10 000 buckets, in both revisions at once."""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from tidegate.rules.compare.axis import ABSENT, ANY, PLAIN, Axis, Case, Cases, Marker, Markers
from tidegate.rules.compare.joint import NEW, OLD, Joint
from tidegate.rules.compare.revision import Side
from tidegate.rules.indexing import interval_pieces
from tidegate.rules.masks import PieceTable
from tidegate.rules.sticky import BUCKETS, key_text, key_value, layer_bucket

BUCKET_PAIRS = BUCKETS * BUCKETS
"""The weight of a layer's axis: buckets of the old revision's key times buckets of the new one's."""

Source = tuple[str, str] | None
"""Where a sticky key comes from: (attribute, "") for any value of it, ("", text) for a known text, None for no key."""


def source_of(side: Side, names: tuple[str, ...], markers: Mapping[str, Marker]) -> Source:
    """Where the key of one revision comes from: the first of `names` that is present or has a default."""
    for name in names:
        marker = markers[name]
        if marker == ANY:
            return name, ""
        if marker != ABSENT:
            return "", str(marker)
        default = key_value(None, side.objective.attributes[name].default)
        if default is not None:
            return "", key_text(default)
    return None


def layer_axis(
    joint: Joint, layer: str, experiments: Mapping[int, Mapping[str, Any]], keys: tuple[str, ...], after: int
) -> Axis:
    """The axis of a layer; `experiments` are those that own buckets of it, by row, `keys` the sticky attributes."""
    rows = _LayerRows(joint, experiments)
    names = [side.layer_keys.get(layer) for side in joint.sides]
    known: dict[tuple[Source, Source], Cases] = {}
    mine = [(name, place) for place, name in enumerate(keys) if any(name in (key or ()) for key in names)]

    def cases(markers: Markers) -> Cases:
        given = {name: markers[place] for name, place in mine}
        was, now = (
            source_of(side, key or names[1 - number] or (), given) if key is not None else None
            for number, (side, key) in enumerate(zip(joint.sides, names, strict=True))
        )
        # A revision without the layer has no rows that look at its bucket.
        sources = (now if names[OLD] is None else was, was if names[NEW] is None else now)
        if sources not in known:
            known[sources] = _cases(layer, rows, sources)
        return known[sources]

    def draw(markers: Markers, chance: random.Random) -> Case:
        return cases(markers).draw(chance)

    return Axis(f"layer {layer}", len(rows.cuts), BUCKET_PAIRS, cases, draw, rows.rows, after=after)


class _LayerRows:
    """The rows of a layer's experiments and the buckets that they own."""

    def __init__(self, joint: Joint, experiments: Mapping[int, Mapping[str, Any]]) -> None:
        owned = {row: [(first, last + 1) for first, last in each["ranges"]] for row, each in experiments.items()}
        pieces = interval_pieces({joint.count - 1 - row: ranges for row, ranges in owned.items()}, joint.count)
        self.rows = joint.rows(experiments)
        self.of = joint.of
        self._free = joint.all_rows & ~self.rows
        self._pieces = PieceTable(pieces, joint.count)
        ends = {bound for ranges in owned.values() for pair in ranges for bound in pair}
        self.cuts = sorted({0, BUCKETS, *ends})

    def mask(self, was: int | None, now: int | None) -> int:
        """The rows that a bucket in each revision leaves (None: the layer's key is absent)."""
        old, new = (self._free if bucket is None else self._pieces.get(bucket) for bucket in (was, now))
        return old & self.of[OLD] | new & self.of[NEW]


def _cases(layer: str, rows: _LayerRows, sources: tuple[Source, Source]) -> Cases:
    ranges = [(first, end - first) for first, end in pairwise(rows.cuts)]
    cases: dict[Case, int] = {}
    was, now = sources
    if was == now and was is not None and was[0]:
        pairs = [(first, first, size * BUCKETS) for first, size in ranges]
    else:
        pairs = [
            (one, other, weight * times)
            for one, weight in _buckets(layer, was, ranges)
            for other, times in _buckets(layer, now, ranges)
        ]
    for one, other, weight in pairs:
        case = (rows.mask(one, other), PLAIN)
        cases[case] = cases.get(case, 0) + weight
    return Cases(cases)


def _buckets(layer: str, source: Source, ranges: list[tuple[int, int]]) -> list[tuple[int | None, int]]:
    if source is None:
        return [(None, BUCKETS)]
    name, text = source
    return [*ranges] if name else [(layer_bucket(layer, text), BUCKETS)]
