"""The axes of an objective in two revisions."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

from tidegate.analysis.compare.alignment import same_json
from tidegate.analysis.compare.axis import (
    ABSENT,
    ANY,
    PLAIN,
    Axis,
    Case,
    Cases,
    Effect,
    Element,
    Marker,
    Markers,
    drawn_axis,
    listed_axis,
)
from tidegate.analysis.compare.classes import Drawn, cases_of, draw_subset, unused_text
from tidegate.analysis.compare.joint import A_SET, NEW, OLD, REFUSED_BY, Joint
from tidegate.analysis.compare.revision import Side
from tidegate.analysis.compare.space import Leaf, Space, State
from tidegate.analysis.space.bits import bitset
from tidegate.language.indexing import interval_pieces
from tidegate.rules.bundle.rule import Experiment
from tidegate.rules.contract import Attribute
from tidegate.rules.masks import PieceTable
from tidegate.rules.sticky import BUCKETS, key_text, key_value, layer_bucket
from tidegate.rules.values import within

BUCKET_PAIRS = BUCKETS * BUCKETS
"""The weight of a layer's axis: buckets of the old revision's key times buckets of the new one's."""

Source = tuple[str, str] | None
"""The source of a sticky key: (attribute, "") for any value of it, ("", text) for a known text, None for no key."""


@dataclass(frozen=True, slots=True)
class Axes:
    """The space of two revisions of an objective.

    `keys` are its sticky attributes, of which `closed_keys` have a closed domain wherever they are declared (so that their
    hashes are known), `cells` its caller-allocated experiments, `layers` the axes that are layers.
    """

    joint: Joint
    keys: tuple[str, ...]
    closed_keys: frozenset[str]
    cells: tuple[str, ...]
    space: Space
    layers: int

    def start(self, at: float) -> State:
        """Return the state of a context of which only the time, in Unix seconds, is known."""
        return self.space.all_axes, self.joint.active(at), 0, (ABSENT,) * len(self.keys), (None,) * len(self.cells)

    def is_changing(self, leaf: Leaf) -> bool:
        """Return whether another or a changed rule decides in the new revision, or whether a revision refuses the context."""
        was, now = leaf[:2]
        if was is None or now is None or was != now:
            return True
        return was >= 0 and bool(self.joint.changing >> was & 1)


def build_axes(old: Side, new: Side) -> Axes:
    joint = Joint(old, new)
    hashing = {row: names for row in range(joint.count) if (names := joint.key_of(row))}
    keys = tuple(sorted({name for names in hashing.values() for name in names}))
    names = tuple(dict.fromkeys(name for side in joint.sides for name in side.objective.attributes))
    axes: list[Axis] = []
    places: dict[str, int] = {}
    for name in names:
        rows = joint.looking.get(name, 0) | bitset(row for row, hashed in hashing.items() if name in hashed)
        rows |= joint.needing.get((name, True), 0) | joint.needing.get((name, False), 0)
        key = keys.index(name) if name in keys else None
        places[name] = len(axes)
        axes += _AttributeAxes(joint, name, key=key, place=len(axes)).axes(rows)
    by_caller = joint.experiments("caller")
    callers = _grouped(by_caller, lambda each: each.id)
    cells = tuple(sorted(callers))
    for place, name in enumerate(cells):
        texts = dict.fromkeys(str(each.cell) for one in callers[name].values() for each in one.cells)
        cases = {(allocated(joint, callers[name], cell), Effect(cell=cell)): 1 for cell in [None, *texts]}
        axes.append(listed_axis(f"allocations.{name}", cases, bitset(callers[name]), cell=place))
    first_layer = len(axes)
    by_layer = joint.experiments("layer")
    for layer, mine in sorted(_grouped(by_layer, lambda each: each.layer or "").items()):
        after = sum(1 << places[name] for name in {name for row in mine for name in joint.key_of(row)})
        axes.append(layer_axis(joint, layer, mine, keys, after))
    space = Space(joint, axes, bitset(hashing), [bitset(callers[name]) for name in cells])
    closed = {name for name in keys if all(each.values is not None for _, each in joint.declared(name))}
    layers = space.all_axes >> first_layer << first_layer
    return Axes(joint, keys, frozenset(closed), cells, space, layers)


class _AttributeAxes:
    """The axis of one attribute and, where it is a `set`, of its elements."""

    def __init__(self, joint: Joint, name: str, *, key: int | None, place: int) -> None:
        """`key` is its position among the sticky attributes, `place` that of its axis."""
        self._joint, self._name, self._key = joint, name, key
        self._declared = joint.declared(name)
        self._elements = _element_axes(joint, name, 1 << place)
        # Only a set that is there has elements.
        self._closes = sum(1 << place + 1 + number for number in range(len(self._elements)))
        self._listed: dict[Case, int] = {}
        self._samples: dict[Case, tuple[str, Any]] = {}
        self._drawn: list[tuple[int, Callable[[random.Random], Case]]] = []
        for kind in dict.fromkeys(attribute.type for _, attribute in self._declared):
            if kind == "set":
                self._add_set()
            else:
                self._add_values([each for each in self._declared if each[1].type == kind])
        if self._has_absence():
            self._add(self._case(None, ABSENT), None)

    def _has_absence(self) -> bool:
        """Return whether absence is a case. With a default it is that value, which has a case already."""
        if len(self._declared) < len(self._joint.sides):
            return True
        if all(attribute.required for _, attribute in self._declared):
            return False
        first, *others = (attribute.default for _, attribute in self._declared)
        return first is None or not all(same_json(first, other) for other in others)

    def axes(self, rows: int) -> list[Axis]:
        """Return the axes; `rows` have a condition on the first of them."""
        if not self._drawn:
            axis = listed_axis(self._name, self._listed, rows, key=self._key, samples=self._samples)
            return [axis, *self._elements]
        declared = {(attribute.type, attribute.values, attribute.required) for _, attribute in self._declared}
        may_refuse = len(declared) > 1 or len(self._declared) < len(self._joint.sides)
        axis = drawn_axis(self._name, self._listed, self._drawn, rows, may_refuse=may_refuse, key=self._key)
        return [axis, *self._elements]

    def _add_set(self) -> None:
        texts, count = _elements(self._joint, self._name)
        if self._name in self._joint.sampled:
            self._drawn.append((2**count, partial(self._draw, partial(draw_subset, texts))))
        else:
            left, effect = self._case(A_SET, None)
            self._add((left, replace(effect, closes=0)), (), 2**count)

    def _add_values(self, declared: list[tuple[int, Attribute]]) -> None:
        predicates = [term for side, _ in declared for term in self._joint.predicates(self._name, side)]
        found = cases_of([attribute for _, attribute in declared], predicates, self._key is not None)
        if isinstance(found, Drawn):
            self._drawn.append((found.count, partial(self._draw, found.draw)))
            return
        for value in found.values:
            marker: Marker = key_text(value) if found.is_closed else ANY
            self._add(self._case(value, ABSENT if value == "" else marker), value)

    def _add(self, case: Case, value: Any, weight: int = 1) -> None:
        self._listed[case] = self._listed.get(case, 0) + weight
        if value is None or case not in self._samples:
            self._samples[case] = self._name, value

    def _draw(self, draw: Callable[[random.Random], Any], chance: random.Random) -> Case:
        return self._case(draw(chance), ANY)

    def _case(self, value: Any, marker: Marker | None) -> Case:
        left, refused = self._joint.mask(self._name, value)
        return left, Effect(refused, None if self._key is None else marker, None, self._closes)


def _elements(joint: Joint, name: str) -> tuple[list[str], int]:
    """Return the elements of a `set` attribute that conditions distinguish, and their number with all others."""
    domains = [attribute.values for _, attribute in joint.declared(name) if attribute.type == "set"]
    closed = {str(element) for domain in domains for element in domain or ()}
    mentioned = {
        element
        for side, attribute in joint.declared(name)
        if attribute.type == "set"
        for term in joint.predicates(name, side)
        if term.operator != "present"
        for element in term.operand
    }
    if all(domain is not None for domain in domains):
        distinct = mentioned | {
            element for element in closed if any(element not in (domain or ()) for domain in domains)
        }
        return sorted(distinct & closed), len(closed)
    found = sorted(mentioned | closed)
    if closed:
        # Closed in only one revision, which refuses values that it does not mention.
        found.append(unused_text(found))
    return found, len(found)


def _element_axes(joint: Joint, name: str, after: int) -> list[Axis]:
    """Return an axis for each element of a `set` attribute that conditions distinguish."""
    declared = [(side, attribute) for side, attribute in joint.declared(name) if attribute.type == "set"]
    if not declared or name in joint.sampled:
        return []
    axes = []
    for element in _elements(joint, name)[0]:
        needing = joint.elements.get(name, {}).get(element, 0)
        refused = sum(REFUSED_BY[side] for side, attribute in declared if not within(attribute, (element,)))
        cases: dict[Case, int] = {(joint.all_rows & ~needing, PLAIN): 1}
        inside = (joint.all_rows, Effect(refused))
        cases[inside] = cases.get(inside, 0) + 1
        samples = {inside: (name, Element(element))} if len(cases) > 1 else {}
        axes.append(listed_axis(f"{name} has {element}", cases, needing, after=after, samples=samples))
    return axes


def _grouped(
    experiments: Mapping[int, Experiment], name: Callable[[Experiment], str]
) -> dict[str, dict[int, Experiment]]:
    found: dict[str, dict[int, Experiment]] = {}
    for row, experiment in experiments.items():
        found.setdefault(name(experiment), {})[row] = experiment
    return found


def allocated(joint: Joint, experiments: Mapping[int, Experiment], cell: str | None) -> int:
    """Return the rows that a caller's allocation to a cell (None: to none of them) of an experiment leaves."""
    lacking = [row for row, each in experiments.items() if cell not in {str(one.cell) for one in each.cells}]
    return joint.all_rows & ~bitset(lacking)


def source_of(side: Side, names: tuple[str, ...], markers: Mapping[str, Marker]) -> Source:
    """Return the source of the key in one revision: the first of `names` that is present or has a default."""
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
    joint: Joint, layer: str, experiments: Mapping[int, Experiment], keys: tuple[str, ...], after: int
) -> Axis:
    """Return the axis of a layer; `experiments`, by row, own buckets of it, `keys` are the sticky attributes."""
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
            known[sources] = _layer_cases(layer, rows, sources)
        return known[sources]

    def draw(markers: Markers, chance: random.Random) -> Case:
        return cases(markers).draw(chance)

    return Axis(f"layer {layer}", len(rows.cuts), BUCKET_PAIRS, cases, draw, rows.rows, after=after)


class _LayerRows:
    def __init__(self, joint: Joint, experiments: Mapping[int, Experiment]) -> None:
        owned = {row: [(first, last + 1) for first, last in each.ranges] for row, each in experiments.items()}
        pieces = interval_pieces({joint.count - 1 - row: ranges for row, ranges in owned.items()}, joint.count)
        self.rows = bitset(experiments)
        self.of = joint.of
        self._free = joint.all_rows & ~self.rows
        self._pieces = PieceTable(pieces, joint.count)
        ends = {bound for ranges in owned.values() for pair in ranges for bound in pair}
        self.cuts = sorted({0, BUCKETS, *ends})

    def mask(self, was: int | None, now: int | None) -> int:
        """Return the rows that a bucket in each revision leaves (None: the layer's key is absent)."""
        old, new = (self._free if bucket is None else self._pieces.get(bucket) for bucket in (was, now))
        return old & self.of[OLD] | new & self.of[NEW]


def _layer_cases(layer: str, rows: _LayerRows, sources: tuple[Source, Source]) -> Cases:
    ranges = [(first, end - first) for first, end in pairwise(rows.cuts)]
    cases: dict[Case, int] = {}
    pairs: list[tuple[int | None, int | None, int]]
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
