"""An objective as boxes in a space: every row of a rule's conditions is a box in the product of a few axes.

An axis is an attribute, the time, the owner of the request's bucket in a layer, or the caller's allocations. Buckets come
from a key, so a region may have to be split by the key's classes (`keys`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

from tidegate.rules.analysis.axis import AttributeAxis, Axis, Conditions, Owners, Span
from tidegate.rules.analysis.boxes import AxisConditions, Boxes, Kind
from tidegate.rules.analysis.elements import SetAxis
from tidegate.rules.analysis.experiments import AllocationAxis, LayerAxis
from tidegate.rules.analysis.keys import Keys, Region
from tidegate.rules.analysis.listed import ListedAxis
from tidegate.rules.analysis.ordered import LineAxis, TimeAxis
from tidegate.rules.conditions import ORDERED
from tidegate.rules.contract import Attribute
from tidegate.rules.program import ObjectiveProgram, World


class Space:
    """The axes of an objective and the boxes of its rules.

    Attributes:
        objective: the objective.
        boxes: the boxes, in the order of the rules.
        boxes_of: for every rule the range (first, end) of its boxes.
        axes: the axes.
        attributes: by attribute, the number of its axis; attributes that no rule looks at have none.
        layers: by the number of their axis, the layers.
        allocations: the axis of the callers' allocations; None: no rule asks for them.
        times: the axis of time; None: no rule has a window.
    """

    def __init__(self, objective: ObjectiveProgram, world: World, at: float) -> None:
        """Build the space.

        Args:
            objective: the objective, without findings.
            world: where its layers are.
            at: Unix seconds; what ends before is over.

        Raises:
            TooManyClassesError: an axis has more classes than are looked at.
        """
        self.objective = objective
        boxes = Boxes(objective, world)
        self.boxes, self.boxes_of = boxes.boxes, boxes.of_rule
        self.axes: list[Axis] = []
        self.attributes: dict[str, int] = {}
        self.layers: dict[int, LayerAxis] = {}
        self._keyed: dict[str, list[LayerAxis]] = {}
        self.allocations: AllocationAxis | None = None
        self.times: TimeAxis | None = None
        for axis, (kind, name) in enumerate(boxes.places):
            conditions = boxes.conditions(axis)
            match kind:
                case Kind.LAYER:
                    layer = LayerAxis(name, world.layers[name].key, conditions, boxes.ranges)
                    self.layers[axis] = layer
                    for attribute in layer.key:
                        self._keyed.setdefault(attribute, []).append(layer)
                    self.axes.append(self.layers[axis])
                case Kind.ATTRIBUTE:
                    self.attributes[name] = axis
                    self.axes.append(self._attribute_axis(objective.attributes[name], conditions))
                case Kind.ALLOCATIONS:
                    self.allocations = AllocationAxis(conditions)
                    self.axes.append(self.allocations)
                case Kind.TIME:
                    self.times = TimeAxis(conditions, at)
                    self.axes.append(self.times)
        self._unconditioned: list[Span] | None = None

    @cached_property
    def keys(self) -> Keys:
        """The keys of its layers.

        Raises:
            TooManyClassesError: a key has more classes than are looked at.
        """
        return Keys(self.axes, self.attributes, self.layers)

    @property
    def has_past(self) -> bool:
        """Whether a time window begins or ends at a time that is over."""
        return self.times is not None and bool(self.times.past)

    def axis_of(self, axis: Axis) -> int:
        """The number of an axis."""
        return next(number for number, each in enumerate(self.axes) if each is axis)

    def region(
        self, conditions: AxisConditions, *, with_past: bool = False, without_key: Sequence[str] = ()
    ) -> Region | None:
        """What meets conditions; None: nothing does. Of the contexts that meet them it leaves out only such as are held by
        all the boxes that hold another, which it does not leave out.

        Args:
            conditions: by axis.
            with_past: also at times that are over.
            without_key: attributes that are no key in the contexts: absent, or empty.

        Raises:
            TooManyClassesError: there are more classes than are looked at.
        """
        if self._unconditioned is None:
            self._unconditioned = [
                self.keys.spans[number] if number in self.layers else axis.within(None)
                for number, axis in enumerate(self.axes)
            ]
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

    def first_present(self, layer: LayerAxis, classes: Sequence[int]) -> str | None:
        """The attribute whose value is a layer's key, in some classes of every axis; None: the key is absent."""
        axes = ((name, self.attributes[name]) for name in layer.key)
        return next((name for name, axis in axes if not classes[axis] & self._keyless(axis)), None)

    def _attribute_axis(self, attribute: Attribute, conditions: Conditions) -> Axis:
        if attribute.type == "set":
            return SetAxis(attribute, conditions)
        owners_of = self._owners_of(attribute.name)
        if attribute.type == "version" or any(
            term.operator in ORDERED for each in conditions.distinct for term in each
        ):
            return LineAxis(attribute, conditions, owners_of)
        is_key = owners_of is not None or attribute.name in self.objective.sticky_key
        return ListedAxis(attribute, conditions, owners_of, is_key=is_key)

    def _keyless(self, axis: int) -> int:
        of = self.axes[axis]
        assert isinstance(of, AttributeAxis)
        return of.keyless

    def _owners_of(self, attribute: str) -> Callable[[Any], Owners] | None:
        layers = self._keyed.get(attribute)
        return (lambda value: tuple(layer.class_of(value) for layer in layers)) if layers else None
