"""Turns a hole that no rule covers into an example of a context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from tidegate.analysis.reach.axis import ABSENT, AttributeAxis
from tidegate.analysis.reach.experiments import LayerAxis
from tidegate.analysis.reach.space import Space
from tidegate.analysis.space.bits import lowest, members
from tidegate.analysis.space.outcomes import UNSERVED, Example, outcome_of
from tidegate.rules.contract import Attribute
from tidegate.rules.engine import Engine
from tidegate.rules.sticky import key_value

TRIES = 200_000
"""Most keys that are tried for one with the wanted bucket in every layer."""

Hole = Sequence[int]
"""On every axis, classes of which any may be chosen."""


def find_example(space: Space, hole: Hole, at: float, engine: Engine) -> Example | None:
    """Return a context within a hole that the engine does not serve, with as few attributes as possible.

    It is at the time `at` (Unix seconds) if it can be, else at a time of the hole. None: no key that was tried gives one.
    """

    def unserved(context: Mapping[str, Any], moment: float) -> bool:
        return outcome_of(engine, space.objective.name, context, moment) == UNSERVED

    context = _context(space, hole)
    moments = [at]
    if space.times is not None:
        # A class of times begins at its lower bound; the first has none.
        number = lowest(hole[space.axes.index(space.times)])
        moments += [max(at, space.times.bounds[number - 1])] if number else []
    moment = None if context is None else next((each for each in moments if unserved(context, each)), None)
    if context is None or moment is None:
        return None
    for name in list(context):
        attribute = space.objective.contract.attributes.get(name)
        fewer = {key: value for key, value in context.items() if key != name}
        if (attribute is None or not attribute.required) and unserved(fewer, moment):
            context = fewer
    return Example(context, moment, has_windows=space.times is not None)


def _context(space: Space, hole: Hole) -> dict[str, Any] | None:
    context: dict[str, Any] = {}
    for attribute in space.objective.contract.attributes.values():
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
        allocations = space.allocations.allocations(lowest(hole[space.axes.index(space.allocations)]))
        if allocations:
            context["allocations"] = allocations
    return context


def _value(
    space: Space, hole: Hole, attribute: Attribute, layers: Sequence[tuple[int, LayerAxis]]
) -> tuple[Any] | None:
    """Return a value of the classes of a hole whose buckets in the layers that it keys are in the hole too."""
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
