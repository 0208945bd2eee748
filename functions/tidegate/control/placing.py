"""Placing: the shards of the models that rules leave to the planner, from where everything is now."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace

from tidegate.control.assigning import Settled
from tidegate.errors import StackError
from tidegate.ports import ModelCatalog
from tidegate.rules import Engine, Target
from tidegate.rules.placement import FleetDemand, PlacementPlan

BYTES_PER_MB = 1_000_000


SizeOf = Callable[[str, int], Awaitable[int]]
"""Gives how big the files of a version of a model are, in bytes."""


async def place(
    demand: FleetDemand, engine: Engine, live: Engine | None, catalog: ModelCatalog, size_of: SizeOf, settled: Settled
) -> PlacementPlan | None:
    """Place every model, moving as little as may be; None where nothing is left to the planner.

    What declares no memory counts by the size of its files, the least that it takes.

    Args:
        demand: what the rules say about placing.
        engine: the rules.
        live: the rules that are live.
        catalog: the models that were pushed.
        size_of: their sizes.
        settled: versions of open steps that must stay.

    Raises:
        StackError: not everything fits; the message says what, and what would help.
        StoreError: a store did not answer.
    """
    if not demand.auto:
        return None
    closures = await _closures(demand, engine, catalog, size_of, settled)
    current: Mapping[str, Sequence[str]] | None = None if live is None else live.fleet.models
    plan = await asyncio.to_thread(demand.plan, closures, current)
    if plan.problems:
        raise StackError("the models do not fit on the shards\n" + "\n".join(map(str, plan.problems)))
    return plan


async def _closures(
    demand: FleetDemand, engine: Engine, catalog: ModelCatalog, size_of: SizeOf, settled: Settled
) -> dict[str, dict[str, int]]:
    """The closure of every target's model, with the sizes of what declares none."""
    targets: dict[str, list[Target]] = {}
    for target in engine.targets():
        targets.setdefault(target.model, []).append(target)
    resolution = await catalog.resolve(engine.targets(), settled)
    plans = {
        model: await catalog.plan(
            [replace(each, version=resolution.versions[each.name]) for each in group], resolution.steps
        )
        for model, group in targets.items()
    }
    loads = {(load.model, load.versions) for plan in plans.values() for load in plan}
    undeclared = {
        (model, version) for model, versions in loads if demand.declared_mb(model) is None for version in versions
    }
    found = dict(zip(undeclared, await asyncio.gather(*(size_of(*unit) for unit in undeclared)), strict=True))
    sizes: dict[str, int] = {}
    for (model, _), size_bytes in found.items():
        sizes[model] = sizes.get(model, 0) + size_bytes
    return {
        model: {load.model: -(-sizes.get(load.model, 0) // BYTES_PER_MB) for load in plan}
        for model, plan in plans.items()
    }
