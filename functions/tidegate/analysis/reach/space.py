"""An objective as boxes in a space: every row of a rule's conditions is a box in the product of a few axes.

An axis is an attribute, the time, the owner of the request's bucket in a layer, or the caller's allocations. Buckets come
from a key, so a region may have to be split by the key's classes (`keys`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property, partial
from itertools import chain
from typing import Any

from tidegate.analysis.reach.axis import AttributeAxis, Axis, AxisConditions, Conditions, Owners, Span
from tidegate.analysis.reach.elements import SetAxis
from tidegate.analysis.reach.experiments import AllocationAxis, LayerAxis
from tidegate.analysis.reach.keys import Keys, Region
from tidegate.analysis.reach.listed import ListedAxis
from tidegate.analysis.reach.ordered import LineAxis, TimeAxis
from tidegate.language.program import ObjectiveProgram, World
from tidegate.rules.bundle.rule import Rule
from tidegate.rules.conditions import ORDERED, rows
from tidegate.rules.contract import Attribute


class _Kind(Enum):
    LAYER = "layer"
    ATTRIBUTE = "attribute"
    ALLOCATIONS = "allocations"
    TIME = "time"


_Place = tuple[_Kind, str]
"""The kind of an axis, and the layer's or the attribute's name."""

_ALLOCATIONS: _Place = (_Kind.ALLOCATIONS, "")
_TIME: _Place = (_Kind.TIME, "")

_Asked = dict[_Place, Any]
"""By axis: predicates of an attribute, a window (start, end) in Unix seconds, an experiment of a layer, or an experiment
and those of its cells that callers allocate."""


@dataclass(frozen=True, slots=True)
class Box:
    """A row of a rule: the rule's position, and the row's conditions."""

    rule: int
    conditions: AxisConditions


class Space:
    """The axes of an objective and the boxes of its rules.

    Attributes:
        boxes: in the order of the rules.
        boxes_of: for every rule the range (first, end) of its boxes.
        axes: layers, attributes, the callers' allocations, time, in this order.
        attributes: by attribute, the number of its axis; attributes that no rule looks at have none.
        layers: by the number of their axis.
        allocations: the axis of the callers' allocations; None: no rule asks for them.
        times: the axis of time; None: no rule has a window.
    """

    def __init__(self, objective: ObjectiveProgram, world: World, at: float) -> None:
        """Build the space; what ends before `at` (Unix seconds) is over.

        Raises:
            TooManyClassesError: an axis has more classes than are looked at.
        """
        self.objective = objective
        table = [list(_asked(rule)) for rule in objective.rules]
        places = _places(objective, world, chain.from_iterable(table))
        axis_of = {place: axis for axis, place in enumerate(places)}
        distinct: list[dict[Any, int]] = [{} for _ in places]
        of_box: list[dict[int, int]] = [{} for _ in places]
        self.boxes: list[Box] = []
        self.boxes_of: list[tuple[int, int]] = []
        for position, rows_asked in enumerate(table):
            self.boxes_of.append((len(self.boxes), len(self.boxes) + len(rows_asked)))
            for asked in rows_asked:
                conditions: dict[int, int] = {}
                for place, condition in asked.items():
                    axis = axis_of[place]
                    number = distinct[axis].setdefault(condition, len(distinct[axis]))
                    conditions[axis] = of_box[axis][len(self.boxes)] = number
                self.boxes.append(Box(position, conditions))
        self.axes: list[Axis] = []
        self.attributes: dict[str, int] = {}
        self.layers: dict[int, LayerAxis] = {}
        self._keyed: dict[str, list[LayerAxis]] = {}
        self.allocations: AllocationAxis | None = None
        self.times: TimeAxis | None = None
        for place, asked_of, boxes in zip(places, distinct, of_box, strict=True):
            self._add_axis(place, Conditions(tuple(asked_of), boxes, len(self.boxes)), world, at)

    def _add_axis(self, place: _Place, conditions: Conditions, world: World, at: float) -> None:
        name, number = place[1], len(self.axes)
        match place[0]:
            case _Kind.LAYER:
                ranges = world.layers[name].experiments
                layer = self.layers[number] = LayerAxis(name, world.layers[name].key, conditions, ranges)
                for attribute in layer.key:
                    self._keyed.setdefault(attribute, []).append(layer)
                self.axes.append(layer)
            case _Kind.ATTRIBUTE:
                self.attributes[name] = number
                self.axes.append(self._attribute_axis(self.objective.contract.attributes[name], conditions))
            case _Kind.ALLOCATIONS:
                self.allocations = AllocationAxis(conditions)
                self.axes.append(self.allocations)
            case _Kind.TIME:
                self.times = TimeAxis(conditions, at)
                self.axes.append(self.times)

    def _attribute_axis(self, attribute: Attribute, conditions: Conditions) -> Axis:
        if attribute.type == "set":
            return SetAxis(attribute, conditions)
        layers = self._keyed.get(attribute.name)
        owners_of = None if layers is None else partial(_owners, layers)
        if attribute.type == "version" or any(
            term.operator in ORDERED for each in conditions.distinct for term in each
        ):
            return LineAxis(attribute, conditions, owners_of)
        is_key = layers is not None or attribute.name in self.objective.contract.sticky_key
        return ListedAxis(attribute, conditions, owners_of, is_key=is_key)

    @cached_property
    def keys(self) -> Keys:
        """The keys of its layers.

        Raises:
            TooManyClassesError: a key has more classes than are looked at.
        """
        return Keys(self.axes, self.attributes, self.layers)

    def region(
        self, conditions: AxisConditions, *, with_past: bool = False, without_key: Sequence[str] = ()
    ) -> Region | None:
        """Return the region that meets conditions, by axis; None: nothing does.

        Of the contexts that meet them it leaves out only such as are held by all the boxes that hold another, which it
        does not leave out. `with_past`: also at times that are over. `without_key`: attributes that are absent or empty.

        Raises:
            TooManyClassesError: there are more classes than are looked at.
        """
        spans = list(self._unconditioned)
        narrowed = set(conditions.keys() - self.layers.keys())
        for number in narrowed:
            spans[number] = self.axes[number].within(conditions[number])
        if self.times is not None and not with_past:
            spans[-1] = self.times.span(spans[-1].classes & ~self.times.past)
            narrowed.add(len(spans) - 1)
        for axis in [self.attributes[name] for name in without_key if name in self.attributes]:
            spans[axis] = self.axes[axis].span(spans[axis].classes & self._keyless(axis))
            narrowed.add(axis)
        # What no condition narrows has classes.
        if not all(spans[axis].classes for axis in narrowed):
            return None
        return self.keys.region(spans, conditions, narrowed)

    @cached_property
    def _unconditioned(self) -> list[Span]:
        return [
            self.keys.spans[number] if number in self.layers else axis.within(None)
            for number, axis in enumerate(self.axes)
        ]

    def first_present(self, layer: LayerAxis, classes: Sequence[int]) -> str | None:
        """Return the attribute whose value is a layer's key, in some classes of every axis; None: the key is absent."""
        axes = ((name, self.attributes[name]) for name in layer.key)
        return next((name for name, axis in axes if not classes[axis] & self._keyless(axis)), None)

    def _keyless(self, axis: int) -> int:
        of = self.axes[axis]
        assert isinstance(of, AttributeAxis)
        return of.keyless


def _owners(layers: Iterable[LayerAxis], value: Any) -> Owners:
    return tuple(layer.class_of(value) for layer in layers)


def _places(objective: ObjectiveProgram, world: World, asked: Iterable[_Asked]) -> list[_Place]:
    """Return the axes that rules, or the keys of the layers that these use, look at."""
    looked_at = dict.fromkeys(place for each in asked for place in each)
    layers = [place for place in looked_at if place[0] is _Kind.LAYER]
    names = {name for kind, name in looked_at if kind is _Kind.ATTRIBUTE}
    names.update(name for _, layer in layers for name in world.layers[layer].key)
    attributes = [(_Kind.ATTRIBUTE, name) for name in objective.contract.attributes if name in names]
    return [*layers, *attributes, *(place for place in (_ALLOCATIONS, _TIME) if place in looked_at)]


def _asked(rule: Rule) -> Iterator[_Asked]:
    shared: _Asked = {}
    if rule.active is not None:
        shared[_TIME] = rule.active
    if (experiment := rule.experiment) is not None:
        if experiment.layer is None:
            shared[_ALLOCATIONS] = (experiment.id, tuple(each.cell for each in experiment.cells))
        else:
            shared[_Kind.LAYER, experiment.layer] = experiment.id
    for row in rows(rule.when):
        asked = dict(shared)
        for term in row:
            place = (_Kind.ATTRIBUTE, term.attribute)
            asked[place] = (*asked.get(place, ()), term)
        yield asked
