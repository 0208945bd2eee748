"""Input and result of the planner.

Memory is in whole megabytes (10^6 bytes), traffic in requests per second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

EVERYONE = "*"
"""In a pair of tenants that are kept apart: every other tenant, and the models of no tenant."""


@dataclass(frozen=True, slots=True)
class ShardCapacity:
    """The limits of a shard; None: unlimited."""

    name: str
    memory_mb: int | None = None
    traffic_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class PlacementItem:
    """A model to place, with its closure.

    Attributes:
        memory_mb: the memory of the model without its steps.
        traffic_per_s: the requests that it expects.
        replicas: on how many shards; None: one, or more if its traffic needs them.
        pins: the shards that the rules give it, preferred first; empty: the planner chooses.
        parts: the memory of every step of its closure. Parts of the same name are one model: they have the same memory in
            all items, and are loaded once on a shard.
    """

    model: str
    memory_mb: int = 0
    traffic_per_s: float = 0.0
    replicas: int | None = None
    tenant: str | None = None
    pins: tuple[str, ...] = ()
    parts: Mapping[str, int] = field(default_factory=dict)


class MoveAction(StrEnum):
    LOAD = "load"
    UNLOAD = "unload"
    PREFER = "prefer"
    """A shard that holds the model already becomes its first."""


@dataclass(frozen=True, slots=True)
class Move:
    """One change on one shard.

    `memory_mb` is the memory that a load adds to the shard, or that an unload frees (0 for a model that is not an item any
    more, since its closure is unknown).
    """

    model: str
    shard: str
    action: MoveAction
    memory_mb: int
    reason: str


@dataclass(frozen=True, slots=True)
class PlacementDecision:
    """The shards of one model, preferred first, and why."""

    model: str
    shards: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class PlacementProblem:
    """A demand that does not fit. `model` is empty for a problem of a shard, `shard` for one of the fleet.

    `also` are further models that lack shards for the same reason.
    """

    model: str
    shard: str
    message: str
    hint: str
    also: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}"


@dataclass(frozen=True, slots=True)
class ShardUse:
    """The load of a shard: the memory of all its models, and the traffic of those that prefer it."""

    memory_mb: int = 0
    traffic_per_s: float = 0.0
    models: int = 0


@dataclass(frozen=True, slots=True)
class ShardPlan:
    capacity: ShardCapacity
    before: ShardUse
    after: ShardUse


@dataclass(frozen=True, slots=True)
class PlacementPlan:
    """A placement with its reasons; only one without problems may be carried out.

    Attributes:
        placement: the shards of every model that fits somewhere, preferred first, even if they are fewer than it wants.
        decisions: one for each item, sorted by model.
        moves: the changes from the current placement: loads before unloads, each sorted by shard and model.
        shards: every shard before and after, sorted by name.
    """

    placement: Mapping[str, tuple[str, ...]]
    decisions: tuple[PlacementDecision, ...]
    moves: tuple[Move, ...]
    shards: tuple[ShardPlan, ...]
    problems: tuple[PlacementProblem, ...]

    @property
    def load_mb(self) -> int:
        return sum(move.memory_mb for move in self.moves if move.action is MoveAction.LOAD)
