"""A hole that no rule covers as a context that a person can paste."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from tidegate.rules.analysis.axis import ABSENT, AttributeAxis
from tidegate.rules.analysis.bitsets import lowest, members
from tidegate.rules.analysis.experiments import LayerAxis
from tidegate.rules.analysis.space import Space
from tidegate.rules.contract import Attribute
from tidegate.rules.sticky import key_value
from tidegate.rules.values import json_line

TRIES = 200_000
"""How many keys are tried for one that has the wanted bucket in every layer."""

Unserved = Callable[[Mapping[str, Any], float], bool]
"""Whether the engine finds no rule for a context at a time (Unix seconds)."""

Hole = Sequence[int]
"""On every axis, classes of which any may be chosen."""


@dataclass(frozen=True, slots=True)
class Example:
    """A context, as JSON values, and the time of the request in Unix seconds."""

    context: Mapping[str, Any]
    at: float

    def text(self) -> str:
        """The context as JSON on one line."""
        return json_line(self.context)


def example(space: Space, hole: Hole, at: float, unserved: Unserved) -> Example | None:
    """A context within a hole that the engine does not serve, with as little in it as can be.

    Args:
        space: the space of the hole.
        hole: what no rule covers.
        at: Unix seconds; the example is at this time if it can be, else at a time of the hole.
        unserved: asks the engine.

    Returns:
        The example, or None where none was found among the keys that were tried.
    """
    context = _context(space, hole)
    if context is None:
        return None
    moment = next((each for each in (at, _moment(space, hole, at)) if unserved(context, each)), None)
    return None if moment is None else Example(_smaller(space, context, moment, unserved), moment)


def _context(space: Space, hole: Hole) -> dict[str, Any] | None:
    context: dict[str, Any] = {}
    for attribute in space.objective.attributes.values():
        axis = space.attributes.get(attribute.name)
        if axis is None:
            if attribute.required:
                context[attribute.name] = _any_value(attribute)
        elif not hole[axis] >> ABSENT & 1:
            keyed = [(number, layer) for number, layer in space.layers.items() if attribute.name in layer.key]
            deciding = [each for each in keyed if space.first_present(each[1], hole) == attribute.name]
            found = _value(space, hole, attribute, deciding)
            if found is None:
                return None
            context[attribute.name] = found[0]
    if space.allocations is not None:
        allocations = space.allocations.allocations(lowest(hole[space.axis_of(space.allocations)]))
        if allocations:
            context["allocations"] = allocations
    return context


def _value(
    space: Space, hole: Hole, attribute: Attribute, layers: Sequence[tuple[int, LayerAxis]]
) -> tuple[Any] | None:
    """A value of the classes of a hole whose buckets in the layers that it keys are in the hole too."""
    axis = space.attributes[attribute.name]
    of = space.axes[axis]
    assert isinstance(of, AttributeAxis)
    for number in members(hole[axis]):
        for value in islice(of.values(number), TRIES):
            key = key_value(value, attribute.default)
            if all(hole[layer_axis] >> layer.class_of(key) & 1 for layer_axis, layer in layers):
                return (value,)
    return None


def _any_value(attribute: Attribute) -> Any:
    if attribute.type == "set":
        return []
    if attribute.values:
        return attribute.values[0]
    return {"string": "1", "integer": 1, "number": 1, "boolean": True, "version": "1.0"}[attribute.type]


def _moment(space: Space, hole: Hole, at: float) -> float:
    if space.times is None:
        return at
    start = space.times.start_of(lowest(hole[space.axis_of(space.times)]))
    return at if start is None else max(at, start)


def _smaller(space: Space, context: dict[str, Any], at: float, unserved: Unserved) -> dict[str, Any]:
    """The context without the optional attributes that the example does not need."""
    kept = dict(context)
    for name in context:
        attribute = space.objective.attributes.get(name)
        if attribute is not None and attribute.required:
            continue
        fewer = {key: value for key, value in kept.items() if key != name}
        if unserved(fewer, at):
            kept = fewer
    return kept
