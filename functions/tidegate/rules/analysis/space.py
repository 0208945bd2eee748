"""An objective as boxes in a space: every row of a rule's conditions is a box in the product of a few axes.

An axis is an attribute, the time, the owner of the request's bucket in a layer, or the caller's allocations. Buckets come
from a key, so where an experiment's layer is concerned, a region is taken apart by the key's classes (`regions`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from tidegate.rules.analysis.axis import NO_KEY, AttributeAxis, Axis, Conditions, Owners, Span
from tidegate.rules.analysis.bitsets import members
from tidegate.rules.analysis.boxes import AxisConditions, Boxes, Kind
from tidegate.rules.analysis.elements import SetAxis
from tidegate.rules.analysis.experiments import KEYLESS, AllocationAxis, LayerAxis
from tidegate.rules.analysis.listed import ListedAxis
from tidegate.rules.analysis.ordered import LineAxis, TimeAxis
from tidegate.rules.conditions import ORDERED
from tidegate.rules.contract import Attribute
from tidegate.rules.program import ObjectiveProgram, World

Region = tuple[Span, ...]
"""A part of the space: on every axis, some classes."""

REMEMBERED_SPANS = 1_000_000

Group = tuple[Owners | None, int]
"""The owners of the buckets of a key (None: any; `NO_KEY`: it is no key), and the classes of its attribute."""


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
        self.allocations: AllocationAxis | None = None
        self.times: TimeAxis | None = None
        for axis, (kind, name) in enumerate(boxes.places):
            conditions = boxes.conditions(axis)
            match kind:
                case Kind.LAYER:
                    self.layers[axis] = LayerAxis(name, world.layers[name].key, conditions, boxes.ranges)
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
        self._keys = [axis for name, axis in self.attributes.items() if self._keyed_by(name)]
        self._groups: dict[int, list[Group]] = {}
        self._unconditioned: list[Span] | None = None
        self._of_owners: dict[tuple[Any, ...], list[Span]] = {}

    @property
    def has_past(self) -> bool:
        """Whether a time window begins or ends at a time that is over."""
        return self.times is not None and bool(self.times.past)

    def axis_of(self, axis: Axis) -> int:
        """The number of an axis."""
        return next(number for number, each in enumerate(self.axes) if each is axis)

    def regions(
        self, conditions: AxisConditions, *, with_past: bool = False, without_key: Sequence[str] = ()
    ) -> Iterator[Region]:
        """The regions that make up what meets conditions. Of the contexts that meet them they leave out only such as are
        held by all the boxes that hold another, which they do not leave out.

        Args:
            conditions: by axis.
            with_past: also at times that are over.
            without_key: attributes that are no key in the contexts: absent, or empty.

        Raises:
            TooManyClassesError: there are more classes than are looked at.
        """
        if self._unconditioned is None:
            self._unconditioned = [axis.within(None) for axis in self.axes]
        spans = list(self._unconditioned)
        for number, condition in conditions.items():
            spans[number] = self.axes[number].within(condition)
        if self.times is not None and not with_past:
            spans[-1] = self.times.span(spans[-1].classes & ~self.times.past)
        for axis in [self.attributes[name] for name in without_key if name in self.attributes]:
            spans[axis] = self.axes[axis].span(spans[axis].classes & self._keyless(axis))
        # What no condition narrows has classes.
        narrowed = {
            *conditions,
            *self._keys,
            *(self.attributes[name] for name in without_key if name in self.attributes),
        }
        if self.times is not None:
            narrowed.add(len(spans) - 1)
        if not all(spans[axis].classes for axis in narrowed):
            return
        if not self.layers:
            yield tuple(spans)
            return
        for chosen in product(*(self._by_owners(axis, spans[axis].classes) for axis in self._keys)):
            groups = dict(zip(self._keys, chosen, strict=True))
            part = list(spans)
            for axis, (_, classes) in groups.items():
                part[axis] = self.axes[axis].span(classes)
            # Layers stand first.
            part[: len(self.layers)] = self._layer_spans(groups, conditions)
            if all(part[axis].classes for axis in narrowed):
                yield tuple(part)

    def first_present(self, layer: LayerAxis, classes: Sequence[int]) -> str | None:
        """The attribute whose value is a layer's key, in some classes of every axis; None: the key is absent."""
        axes = ((name, self.attributes[name]) for name in layer.key)
        return next((name for name, axis in axes if not classes[axis] & self._keyless(axis)), None)

    def _layer_spans(self, groups: Mapping[int, Group], conditions: AxisConditions) -> list[Span]:
        """The spans of all layers. A rule looks at one layer at the most, so those that it does not look at are kept by the
        owners of the keys' buckets: thousands of layers cost little."""
        owners = tuple((axis, of) for axis, (of, _) in groups.items())
        kept = self._of_owners.get(owners)
        if kept is None:
            kept = [layer.span(self._layer_classes(axis, None, groups)) for axis, layer in self.layers.items()]
            if len(self._of_owners) * len(kept) < REMEMBERED_SPANS:
                self._of_owners[owners] = kept
        found = list(kept)
        for axis in conditions.keys() & self.layers.keys():
            layer = self.layers[axis]
            found[axis] = layer.span(self._layer_classes(axis, conditions[axis], groups))
        return found

    def _layer_classes(self, axis: int, condition: int | None, groups: Mapping[int, Group]) -> int:
        layer = self.layers[axis]
        for name in layer.key:
            owners, _ = groups[self.attributes[name]]
            if owners == NO_KEY:
                continue
            if owners is None:
                return layer.candidates(condition)
            return layer.candidates_at(condition, owners[self._keyed_by(name).index(axis)])
        return layer.candidates_at(condition, KEYLESS)

    def _by_owners(self, axis: int, classes: int) -> list[Group]:
        of = self.axes[axis]
        assert isinstance(of, AttributeAxis)
        is_whole = classes == of.within(None).classes
        if is_whole and axis in self._groups:
            return self._groups[axis]
        groups: dict[Owners | None, int] = {}
        for number in members(classes):
            for owners in of.owners(number):
                groups[owners] = groups.get(owners, 0) | 1 << number
        found = list(groups.items())
        if is_whole:
            self._groups[axis] = found
        return found

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

    def _keyed_by(self, attribute: str) -> list[int]:
        return [axis for axis, layer in self.layers.items() if attribute in layer.key]

    def _owners_of(self, attribute: str) -> Callable[[Any], Owners] | None:
        layers = [self.layers[axis] for axis in self._keyed_by(attribute)]
        return (lambda value: tuple(layer.class_of(value) for layer in layers)) if layers else None
