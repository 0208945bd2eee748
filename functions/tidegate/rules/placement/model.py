"""What the planner is asked, and what it answers.

Memory is in whole megabytes (10^6 bytes), traffic in requests per second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

EVERYONE = "*"
"""In a pair of tenants that are kept apart: every other tenant, and the models of no tenant."""


@dataclass(frozen=True, slots=True)
class ShardCapacity:
    """What a shard can hold and serve; None: no limit is declared."""

    name: str
    memory_mb: int | None = None
    traffic_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class PlacementItem:
    """A model to place, with its closure.

    Attributes:
        model: its name.
        memory_mb: the memory of the model itself.
        traffic_per_s: the requests that it expects.
        replicas: on how many shards; None leaves it to the planner: one, more where the traffic asks for it.
        tenant: whose it is, None where nobody's.
        pins: the shards that the rules give it, preferred first; empty: the planner's choice.
        parts: the memory of every step of its closure. A part with one name is one model: it has the same memory in all
            items, and is loaded once on a shard however many items need it.
    """

    model: str
    memory_mb: int = 0
    traffic_per_s: float = 0.0
    replicas: int | None = None
    tenant: str | None = None
    pins: tuple[str, ...] = ()
    parts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Move:
    """One change on one shard.

    `load` has the memory that is loaded for it beside what the shard held before, `unload` what is free afterwards (0 for
    a model that is no item any more, as nothing is known of its closure); `prefer` only puts the shard, which holds the
    model already, before the model's others.
    """

    model: str
    shard: str
    action: Literal["load", "unload", "prefer"]
    memory_mb: int
    reason: str


@dataclass(frozen=True, slots=True)
class PlacementDecision:
    """Where one model is placed (preferred shard first), and why there."""

    model: str
    shards: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class PlacementProblem:
    """What cannot be: which model (empty: it is about the shard), on which shard (empty: on any), and what would help.

    `also` are further models that lack shards for the same reason.
    """

    model: str
    shard: str
    message: str
    hint: str
    also: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The problem and what would help, in one line."""
        return f"{self.message}; {self.hint}"


@dataclass(frozen=True, slots=True)
class ShardUse:
    """What a shard holds: memory of all its models, traffic of those that prefer it, and how many are placed on it."""

    memory_mb: int = 0
    traffic_per_s: float = 0.0
    models: int = 0


@dataclass(frozen=True, slots=True)
class ShardPlan:
    """A shard before and after a plan."""

    capacity: ShardCapacity
    before: ShardUse
    after: ShardUse


@dataclass(frozen=True, slots=True)
class PlacementPlan:
    """A placement with its reasons.

    Attributes:
        placement: the shards of every model, preferred first; a model that fits nowhere is missing, one that found fewer
            shards than it wants has those. Only a plan without problems may be carried out.
        decisions: one for each item, sorted by model.
        moves: what changes against the current placement, sorted by model and shard; loads before unloads.
        shards: every shard before and after, sorted by name.
        problems: what does not fit.
    """

    placement: Mapping[str, tuple[str, ...]]
    decisions: tuple[PlacementDecision, ...]
    moves: tuple[Move, ...]
    shards: tuple[ShardPlan, ...]
    problems: tuple[PlacementProblem, ...]

    @property
    def load_mb(self) -> int:
        """The memory that all moves load."""
        return sum(move.memory_mb for move in self.moves if move.action == "load")
