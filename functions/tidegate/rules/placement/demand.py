"""What fleet.yaml says about placing, and the items and the plan that follow from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tidegate.rules.placement.model import PlacementItem, PlacementPlan, ShardCapacity
from tidegate.rules.placement.planner import plan_placement

Closure = Mapping[str, int]
"""The models of a closure, the model itself included, with the memory (MB) that each has where none is declared."""


@dataclass(frozen=True, slots=True)
class ModelDemand:
    """What fleet.yaml says about one model. `pins` are its shards, empty where the planner chooses them."""

    pins: tuple[str, ...] = ()
    memory_mb: int | None = None
    traffic_per_s: float = 0.0
    replicas: int | None = None
    tenant: str | None = None


@dataclass(frozen=True, slots=True)
class FleetDemand:
    """What fleet.yaml says about placing.

    Attributes:
        shards: what each shard can hold and serve.
        models: every model that is placed, by name.
        steps: the declared memory of steps that are not placed themselves, in MB.
        apart: pairs of tenants that share no shard.
    """

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
        """Whether there is nothing to plan and nothing to check: pins alone, and nothing that limits them."""
        limits = any(shard.memory_mb is not None or shard.traffic_per_s is not None for shard in self.shards)
        return not (limits or self.apart or self.auto)

    def declared_mb(self, model: str) -> int | None:
        """The memory that fleet.yaml declares for a model or a step; None where it declares none."""
        demand = self.models.get(model)
        return self.steps.get(model) if demand is None or demand.memory_mb is None else demand.memory_mb

    def items(self, closures: Mapping[str, Closure] | None = None) -> list[PlacementItem]:
        """The models as the planner takes them.

        Args:
            closures: the closure of each model as its files stand. A model without one has no steps, and what has
                neither a declared nor a default memory counts nothing.

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

        A compile plans with what is declared alone, from nothing, so that equal rules give equal bundles. A publisher
        plans with the real closures and from the live placement (`Engine.fleet.models` of the live bundle), and gives
        the `placement` of a plan without problems to `tidegate.rules.resolved.resolve_bundle`: pins are in it as the
        rules have them.

        Args:
            closures: as for `items`.
            current: the shards of each model now, preferred first; None: nothing is placed yet.
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
