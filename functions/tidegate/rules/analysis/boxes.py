"""The boxes of an objective: every row of a rule's conditions, and what it asks of each axis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import accumulate
from typing import Any

from tidegate.rules.analysis.axis import Conditions
from tidegate.rules.conditions import rows
from tidegate.rules.program import ObjectiveProgram, Rule, World

AxisConditions = Mapping[int, int]
"""By axis, the number of a condition on it."""


class Kind(Enum):
    """What an axis is about."""

    LAYER = "layer"
    ATTRIBUTE = "attribute"
    ALLOCATIONS = "allocations"
    TIME = "time"


Place = tuple[Kind, str]
"""An axis: what it is about, and the layer's or the attribute's name."""

ALLOCATIONS: Place = (Kind.ALLOCATIONS, "")
TIME: Place = (Kind.TIME, "")


@dataclass(frozen=True, slots=True)
class Box:
    """A row of a rule: the rule's position, and what the row asks."""

    rule: int
    conditions: AxisConditions


class Boxes:
    """The boxes of an objective, in order.

    Attributes:
        places: the axes, in order: layers, attributes, the callers' allocations, time.
        boxes: the boxes; those of a rule stand side by side.
        of_rule: for every rule the range (first, end) of its boxes.
        ranges: the bucket ranges of every experiment of a layer that a rule runs.
    """

    def __init__(self, objective: ObjectiveProgram, world: World) -> None:
        self.boxes: list[Box] = []
        self.ranges: dict[str, Sequence[Sequence[int]]] = {
            experiment["id"]: experiment["ranges"]
            for rule in objective.rules
            if (experiment := rule.body.get("experiment", {})).get("allocate") == "layer"
        }
        table = [(position, asked) for position, rule in enumerate(objective.rules) for asked in _asked(rule)]
        asked_of = dict.fromkeys(place for _, asked in table for place in asked)
        layers = [place for place in asked_of if place[0] is Kind.LAYER]
        looked_at = {place[1] for place in asked_of if place[0] is Kind.ATTRIBUTE}
        looked_at.update(name for _, layer in layers for name in world.layers[layer].key)
        attributes = [(Kind.ATTRIBUTE, name) for name in objective.attributes if name in looked_at]
        self.places: list[Place] = [
            *layers,
            *attributes,
            *(place for place in (ALLOCATIONS, TIME) if place in asked_of),
        ]
        axis_of = {place: axis for axis, place in enumerate(self.places)}
        distinct: list[dict[Any, int]] = [{} for _ in self.places]
        self._of_box: list[dict[int, int]] = [{} for _ in self.places]
        for position, asked in table:
            conditions: dict[int, int] = {}
            for place, condition in asked.items():
                axis = axis_of[place]
                number = distinct[axis].setdefault(condition, len(distinct[axis]))
                conditions[axis] = self._of_box[axis][len(self.boxes)] = number
            self.boxes.append(Box(position, conditions))
        self._distinct = [tuple(each) for each in distinct]
        counts = [0] * len(objective.rules)
        for box in self.boxes:
            counts[box.rule] += 1
        ends = list(accumulate(counts))
        self.of_rule = list(zip([0, *ends], ends, strict=False))

    def conditions(self, axis: int) -> Conditions:
        """What the boxes ask of an axis."""
        return Conditions(self._distinct[axis], self._of_box[axis], len(self.boxes))


def _asked(rule: Rule) -> Iterator[dict[Place, Any]]:
    """What each row of a rule asks, by axis: predicates of an attribute, a window (start, end) in Unix seconds, an
    experiment of a layer, or an experiment and those of its cells that callers allocate."""
    shared: dict[Place, Any] = {}
    experiment = rule.body.get("experiment")
    if "active" in rule.body:
        shared[TIME] = tuple(rule.body["active"])
    if experiment is not None and experiment["allocate"] == "caller":
        shared[ALLOCATIONS] = (experiment["id"], tuple(cell["cell"] for cell in experiment["cells"]))
    elif experiment is not None:
        shared[Kind.LAYER, experiment["layer"]] = experiment["id"]
    for row in rows(rule.when):
        asked = dict(shared)
        for term in row:
            place = (Kind.ATTRIBUTE, term.attribute)
            asked[place] = (*asked.get(place, ()), term)
        yield asked
