"""Which models each shard must hold, as the rules say."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from tidegate.errors import ModelConfigError
from tidegate.ports import ModelLoad
from tidegate.rules import Engine, Target


class DirectoryCatalog(Protocol):
    """Plans from the files of a directory as they are now."""

    def plan(self, targets: Iterable[Target]) -> tuple[ModelLoad, ...]:
        """The closures of all targets as loads without duplicates, steps before the ensembles that call them."""
        ...


Plan = tuple[ModelLoad, ...]
"""What one endpoint must hold, steps before the ensembles that call them."""

NOTHING: Plan = ()


@dataclass(frozen=True, slots=True)
class Assignment:
    """What every endpoint of each shard must hold for one engine; a shard without targets holds nothing."""

    engine: Engine
    plans: Mapping[str, Plan]

    def targets(self, shard: str) -> tuple[Target, ...]:
        """The targets that the rules can reach on a shard."""
        return targets_on(self.engine, shard)


def assign(engine: Engine, catalog: DirectoryCatalog) -> Assignment:
    """Plan every shard of the engine's fleet.

    Raises:
        ModelConfigError: a model is missing or cannot be served as its files stand.
    """
    return Assignment(engine, {shard: catalog.plan(targets_on(engine, shard)) for shard in engine.fleet.shards})


def transition(leaving: Sequence[Assignment], wanted: Assignment, catalog: DirectoryCatalog, shard: str) -> Plan:
    """What a shard must hold while requests of `leaving`, oldest first, and of `wanted` are under way.

    Where the part of an engine can no longer be planned, because its files have changed or gone, it is left out, and so
    are those before it: what is loaded stays loaded as it is.
    """
    for oldest in range(len(leaving)):
        engines = [*leaving[oldest:], wanted]
        with contextlib.suppress(ModelConfigError):
            return catalog.plan({target for assignment in engines for target in assignment.targets(shard)})
    return wanted.plans[shard]


def targets_on(engine: Engine, shard: str) -> tuple[Target, ...]:
    """The targets that the rules can reach on a shard."""
    return tuple(target for target in engine.targets() if shard in target.shards)


def serves(loaded: Mapping[str, ModelLoad], target: Target) -> bool:
    """Whether an endpoint with these models loaded can serve a target."""
    load = loaded.get(target.model)
    return load is not None and (target.version is None or target.version in load.versions)


def unserved(engine: Engine, loaded: Mapping[str, Collection[Mapping[str, ModelLoad]]]) -> tuple[Target, ...]:
    """The targets that no endpoint serves, given what is loaded on the endpoints of each shard."""
    return tuple(
        target
        for target in engine.targets()
        if not any(serves(models, target) for shard in target.shards for models in loaded.get(shard, ()))
    )
