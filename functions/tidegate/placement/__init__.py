"""Decides which closures are on which shards, without I/O and with the standard library alone.

docs/placement.md says why this is a heuristic and not a solver, and how far it is from the optimum.
"""

from __future__ import annotations

from tidegate.placement.demand import Closure, FleetDemand, ModelDemand
from tidegate.placement.model import (
    EVERYONE,
    Move,
    MoveAction,
    PlacementDecision,
    PlacementItem,
    PlacementPlan,
    PlacementProblem,
    ShardCapacity,
    ShardPlan,
    ShardUse,
)
from tidegate.placement.planner import plan_placement

__all__ = [
    "EVERYONE",
    "Closure",
    "FleetDemand",
    "ModelDemand",
    "Move",
    "MoveAction",
    "PlacementDecision",
    "PlacementItem",
    "PlacementPlan",
    "PlacementProblem",
    "ShardCapacity",
    "ShardPlan",
    "ShardUse",
    "plan_placement",
]
