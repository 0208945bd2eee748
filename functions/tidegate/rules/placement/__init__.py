"""Where models are placed: which closures are on which shards. Pure, and the standard library alone.

Its own heuristic rather than a solver: placing by rules is what Tidegate is for, what the planner must explain (why a
model is where it is, what would make it fit) a solver does not say, and the start-up of a compile stays light.
docs/placement.md has the measured distance to the optimum.
"""

from __future__ import annotations

from tidegate.rules.placement.demand import Closure, FleetDemand, ModelDemand
from tidegate.rules.placement.model import (
    EVERYONE,
    Move,
    PlacementDecision,
    PlacementItem,
    PlacementPlan,
    PlacementProblem,
    ShardCapacity,
    ShardPlan,
    ShardUse,
)
from tidegate.rules.placement.planner import plan_placement

__all__ = [
    "EVERYONE",
    "Closure",
    "FleetDemand",
    "ModelDemand",
    "Move",
    "PlacementDecision",
    "PlacementItem",
    "PlacementPlan",
    "PlacementProblem",
    "ShardCapacity",
    "ShardPlan",
    "ShardUse",
    "plan_placement",
]
