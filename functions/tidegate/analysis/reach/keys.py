"""The keys of layers: which classes of a key's attribute go with which classes of the layers that it keys.

A bucket comes from a key, so a layer's axis and those of its key are not independent. A region is looked at as if they were
until a hole in it contradicts itself; it is then split at one key. So thousands of keys of which no rule makes a difference
cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.analysis.reach.axis import NO_KEY, AttributeAxis, Axis, AxisConditions, Owners, Span
from tidegate.analysis.reach.experiments import KEYLESS, LayerAxis
from tidegate.analysis.space.bits import members

Group = tuple[Owners | None, int]
"""The owners of the buckets of a key (None: any; `NO_KEY`: it is not a key), and the classes of its attribute."""

Groups = Mapping[int, Sequence[Group]]
"""By axis, the groups of a key."""


@dataclass(frozen=True, slots=True)
class Region:
    """A part of the space: on every axis, some classes. Not every combination of a key and a bucket need exist.

    `conditions` are those that the region meets, by axis; `groups` has the groups of each key that has not all of its groups.
    """

    spans: tuple[Span, ...]
    conditions: AxisConditions
    groups: Groups


class Keys:
    def __init__(self, axes: Sequence[Axis], attributes: Mapping[str, int], layers: Mapping[int, LayerAxis]) -> None:
        """`attributes` are the axes of attributes by name, `layers` the layers by axis."""
        self._axes, self._layers = axes, layers
        self._key_of = {axis: tuple(attributes[name] for name in layer.key) for axis, layer in layers.items()}
        self._keyed: dict[int, list[int]] = {}
        for axis, key in self._key_of.items():
            for each in key:
                self._keyed.setdefault(each, []).append(axis)
        self._place = {(key, axis): place for key, keyed in self._keyed.items() for place, axis in enumerate(keyed)}
        self._whole = {axis: self._groups(axis, axes[axis].within(None).classes) for axis in self._keyed}
        self.spans = {axis: layer.span(self._classes(axis, None, {})) for axis, layer in layers.items()}
        """The classes of the layers that are possible while nothing is known about a key."""

    def region(self, spans: list[Span], conditions: AxisConditions, narrowed: Iterable[int]) -> Region | None:
        """Return the region that meets conditions; None: nothing does.

        `spans` has on the axes of all but layers the classes that meet them, and is changed; `narrowed` are the axes of attributes
        that have not all of their classes.
        """
        groups = {axis: self._groups(axis, spans[axis].classes) for axis in narrowed if axis in self._keyed}
        for axis, span in self._layer_spans(groups, groups, conditions):
            if not span.classes:
                return None
            spans[axis] = span
        return Region(tuple(spans), conditions, groups)

    def split(self, region: Region, key: int) -> Iterator[Region]:
        for group in region.groups.get(key, self._whole[key]):
            groups = {**region.groups, key: [group]}
            spans = list(region.spans)
            spans[key] = self._axes[key].span(group[1])
            for axis, span in self._layer_spans([key], groups, region.conditions):
                spans[axis] = span
            if spans[key].classes and all(spans[axis].classes for axis in self._keyed[key]):
                yield Region(tuple(spans), region.conditions, groups)

    def split_at_all(self, region: Region, layers: Iterable[int], most: int) -> list[Region] | None:
        """Return the region split at every key of some layers; None: into more than `most` parts."""
        parts = [region]
        for key in dict.fromkeys(key for axis in layers for key in self._key_of[axis]):
            parts = [part for each in parts for part in self.split(each, key)]
            if len(parts) > most:
                return None
        return parts

    def settled(self, region: Region, hole: Sequence[int], *, every: bool = False) -> tuple[int, ...] | int:
        """Return a part of a hole in a region in which every key goes with the buckets, or the key at which to split the region.

        `every`: choose what every key is, and not only those that the hole makes a difference for.
        """
        spans, found = region.spans, list(hole)
        layers = [
            axis for axis in self._layers if every or axis in region.conditions or hole[axis] != spans[axis].classes
        ]
        keys = {key: None for axis in layers for key in self._key_of[axis]}
        keys.update((key, None) for key in self._keyed if hole[key] != spans[key].classes)
        chosen: dict[int, list[Group]] = {}
        checked = set(layers)
        for key in keys:
            groups = region.groups.get(key, self._whole[key])
            alone = [axis for axis in self._keyed[key] if axis in checked and len(self._key_of[axis]) == 1]
            for owners, classes in groups:
                chosen[key] = [(owners, classes & hole[key])]
                if chosen[key][0][1] and all(
                    hole[axis] & self._classes(axis, region.conditions.get(axis), chosen) for axis in alone
                ):
                    found[key] = chosen[key][0][1]
                    break
            else:
                return key
        for axis in layers:
            found[axis] &= self._classes(axis, region.conditions.get(axis), chosen)
            if not found[axis]:
                return next(key for key in self._key_of[axis] if len(region.groups.get(key, self._whole[key])) > 1)
        return tuple(found)

    def _layer_spans(
        self, changed: Iterable[int], groups: Groups, conditions: AxisConditions
    ) -> Iterator[tuple[int, Span]]:
        """Yield what the layers may be that some keys, whose groups changed, key, and those of conditions."""
        for key in changed:
            for axis in self._keyed[key]:
                if axis not in conditions and (len(groups[key]) == 1 or len(self._key_of[axis]) > 1):
                    yield axis, self._layers[axis].span(self._classes(axis, None, groups))
        for axis in conditions.keys() & self._layers.keys():
            yield axis, self._layers[axis].span(self._classes(axis, conditions[axis], groups))

    def _classes(self, axis: int, condition: int | None, groups: Groups) -> int:
        """Return the classes of a layer that its key's groups allow; of a key that `groups` does not have, all."""
        layer, found = self._layers[axis], 0
        for key in self._key_of[axis]:
            may_be_absent = False
            for owners, _ in groups.get(key, self._whole[key]):
                if owners == NO_KEY:
                    may_be_absent = True
                elif owners is None:
                    found |= layer.candidates(condition)
                else:
                    found |= layer.candidates_at(condition, owners[self._place[key, axis]])
            if not may_be_absent:
                return found
        return found | layer.candidates_at(condition, KEYLESS)

    def _groups(self, axis: int, classes: int) -> list[Group]:
        of: Any = self._axes[axis]
        assert isinstance(of, AttributeAxis)
        groups: dict[Owners | None, int] = {}
        for number in members(classes):
            for owners in of.owners(number):
                groups[owners] = groups.get(owners, 0) | 1 << number
        return list(groups.items())
