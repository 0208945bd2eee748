"""The placement section of fleet.yaml, and the plan for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tidegate.placement.model import PlacementItem, PlacementPlan, ShardCapacity
from tidegate.placement.planner import plan_placement

Closure = Mapping[str, int]
"""The models of a closure, the model itself included, with the default memory of each in MB."""


@dataclass(frozen=True, slots=True)
class ModelDemand:
    """One model in fleet.yaml. `pins` are its shards; empty: the planner chooses."""

    pins: tuple[str, ...] = ()
    memory_mb: int | None = None
    traffic_per_s: float = 0.0
    replicas: int | None = None
    tenant: str | None = None


@dataclass(frozen=True, slots=True)
class FleetDemand:
    """The fleet in fleet.yaml. `steps` has the declared memory, in MB, of steps that are not placed themselves, `apart` the
    pairs of tenants that share no shard."""

    shards: tuple[ShardCapacity, ...] = ()
    models: Mapping[str, ModelDemand] = field(default_factory=dict)
    steps: Mapping[str, int] = field(default_factory=dict)
    apart: tuple[tuple[str, str], ...] = ()

    @property
    def auto(self) -> tuple[str, ...]:
        """The models that the planner places, sorted."""
        return tuple(sorted(model for model, demand in self.models.items() if not demand.pins))

    @property
    def is_trivial(self) -> bool:
        """Whether there is nothing to plan or check: pins without limits."""
        limits = any(shard.memory_mb is not None or shard.traffic_per_s is not None for shard in self.shards)
        return not (limits or self.apart or self.auto)

    def declared_mb(self, model: str) -> int | None:
        demand = self.models.get(model)
        return self.steps.get(model) if demand is None or demand.memory_mb is None else demand.memory_mb

    def items(self, closures: Mapping[str, Closure] | None = None) -> list[PlacementItem]:
        """Return the models as items for the planner.

        Args:
            closures: the closure of each model. A model without one has no steps, and memory that is neither declared nor a
                default counts as 0.

        Raises:
            ValueError: two closures give one model different defaults.
        """
        return [self._item(model, demand, (closures or {}).get(model, {})) for model, demand in self.models.items()]

    def plan(
        self,
        closures: Mapping[str, Closure] | None = None,
        current: Mapping[str, Sequence[str]] | None = None,
    ) -> PlacementPlan:
        """Place all models.

        A compile plans from the declared values alone, so that equal rules give equal bundles. A publisher plans with the
        real `closures`, from the placement of the live bundle (`current`, preferred shard first).
        """
        return plan_placement(self.items(closures), self.shards, current, self.apart)

    def _item(self, model: str, demand: ModelDemand, closure: Closure) -> PlacementItem:
        parts = {name: self._memory_mb(name, default) for name, default in closure.items() if name != model}
        return PlacementItem(
            model,
            self._memory_mb(model, closure.get(model, 0)),
            demand.traffic_per_s,
            demand.replicas,
            demand.tenant,
            demand.pins,
            parts,
        )

    def _memory_mb(self, model: str, default: int) -> int:
        declared = self.declared_mb(model)
        return default if declared is None else declared
