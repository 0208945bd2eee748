"""The axes of an objective in two revisions."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tidegate.rules.compare.alignment import same_json
from tidegate.rules.compare.axis import (
    ABSENT,
    ANY,
    PLAIN,
    Axis,
    Case,
    Effect,
    Element,
    Marker,
    Markers,
    drawn_axis,
    listed_axis,
)
from tidegate.rules.compare.classes import Drawn, cases_of, draw_subset, unused_text
from tidegate.rules.compare.joint import A_SET, REFUSED_BY, Joint
from tidegate.rules.compare.layers import Source, layer_axis, source_of
from tidegate.rules.compare.revision import Side
from tidegate.rules.compare.space import Leaf, Space, State
from tidegate.rules.contract import Attribute
from tidegate.rules.sticky import key_text
from tidegate.rules.values import within


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
        """The state of a context of which nothing is known but its moment, in Unix seconds."""
        return self.space.all_axes, self.joint.active(at), 0, (ABSENT,) * len(self.keys), (None,) * len(self.cells)

    def is_changing(self, leaf: Leaf) -> bool:
        """Whether another rule, or a changed one, decides in the new revision, or a revision refuses."""
        was, now = leaf[:2]
        if was is None or now is None or was != now:
            return True
        return was >= 0 and bool(self.joint.changing >> was & 1)

    def source(self, side: int, names: tuple[str, ...], markers: Markers) -> Source:
        """Where the key of one revision comes from, given what is known of the sticky attributes."""
        return source_of(self.joint.sides[side], names, dict(zip(self.keys, markers, strict=True)))


def build_axes(old: Side, new: Side) -> Axes:
    """The axes of one objective in two revisions."""
    joint = Joint(old, new)
    hashing = {row: names for row in range(joint.count) if (names := joint.key_of(row))}
    keys = tuple(sorted({name for names in hashing.values() for name in names}))
    names = tuple(dict.fromkeys(name for side in joint.sides for name in side.objective.attributes))
    axes: list[Axis] = []
    places: dict[str, int] = {}
    for name in names:
        rows = joint.looking.get(name, 0) | joint.rows(row for row, hashed in hashing.items() if name in hashed)
        rows |= joint.needing.get((name, True), 0) | joint.needing.get((name, False), 0)
        key = keys.index(name) if name in keys else None
        places[name] = len(axes)
        axes += _AttributeAxes(joint, name, key=key, place=len(axes)).axes(rows)
    by_caller = joint.experiments("caller")
    callers = _grouped(by_caller, "id")
    cells = tuple(sorted(callers))
    axes += [_allocation_axis(joint, callers[name], name, place) for place, name in enumerate(cells)]
    first_layer = len(axes)
    by_layer = joint.experiments("layer")
    for layer, mine in sorted(_grouped(by_layer, "layer").items()):
        after = sum(1 << places[name] for name in {name for row in mine for name in joint.key_of(row)})
        axes.append(layer_axis(joint, layer, mine, keys, after))
    allocated = [joint.rows(callers[name]) for name in cells]
    space = Space(joint, axes, joint.rows(hashing), allocated)
    closed = {name for name in keys if all(each.values is not None for _, each in joint.declared(name))}
    layers = space.all_axes >> first_layer << first_layer
    return Axes(joint, keys, frozenset(closed), cells, space, layers)


class _AttributeAxes:
    """The axis of one attribute and, where it is a `set`, of its elements."""

    def __init__(self, joint: Joint, name: str, *, key: int | None, place: int) -> None:
        """`key` is its place among the sticky attributes, `place` that of its axis."""
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
        """Whether absence is a case. With a default it is that value, which has a case already."""
        if len(self._declared) < len(self._joint.sides):
            return True
        if all(attribute.required for _, attribute in self._declared):
            return False
        first, *others = (attribute.default for _, attribute in self._declared)
        return first is None or not all(same_json(first, other) for other in others)

    def axes(self, rows: int) -> list[Axis]:
        """The axes, of which `rows` look at the first."""
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
    """The elements of a `set` attribute that are told apart, and how many there are together with those that are not."""
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
        told = mentioned | {element for element in closed if any(element not in (domain or ()) for domain in domains)}
        return sorted(told & closed), len(closed)
    found = sorted(mentioned | closed)
    if closed:
        # Closed in one revision alone, which refuses what nobody mentions.
        found.append(unused_text(found))
    return found, len(found)


def _element_axes(joint: Joint, name: str, after: int) -> list[Axis]:
    """An axis for each element of a `set` attribute that is told apart."""
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


def _grouped(experiments: Mapping[int, Mapping[str, Any]], field: str) -> dict[str, dict[int, Mapping[str, Any]]]:
    """Experiments, by row, grouped by one of their fields."""
    found: dict[str, dict[int, Mapping[str, Any]]] = {}
    for row, experiment in experiments.items():
        found.setdefault(experiment[field], {})[row] = experiment
    return found


def _allocation_axis(joint: Joint, mine: Mapping[int, Mapping[str, Any]], name: str, place: int) -> Axis:
    texts = {str(cell["cell"]): None for experiment in mine.values() for cell in experiment["cells"]}
    cases = {(allocated(joint, mine, cell), Effect(cell=cell)): 1 for cell in [None, *texts]}
    return listed_axis(f"allocations.{name}", cases, joint.rows(mine), cell=place)


def allocated(joint: Joint, experiments: Mapping[int, Mapping[str, Any]], cell: str | None) -> int:
    """The rows that a caller's allocation to a cell (None: to none of them) of an experiment leaves."""
    lacking = [row for row, each in experiments.items() if cell not in {str(one["cell"]) for one in each["cells"]}]
    return joint.all_rows & ~joint.rows(lacking)
