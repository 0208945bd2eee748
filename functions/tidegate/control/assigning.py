"""Assignment: compiled rules with every version and placement made concrete, and what each shard must hold for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from tidegate.control.plans import Plan
from tidegate.ports import ModelCatalog
from tidegate.rules import Engine, Target, load_bundle
from tidegate.rules.resolved import resolve_bundle

Settled = Mapping[str, Mapping[str, int]]
"""The versions of open steps that are in use and must stay, by ensemble and step."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """A resolved bundle with its revision, the plan of each shard that must hold something, and what was decided here."""

    bundle: bytes
    revision: str
    plans: Mapping[str, Plan]
    notes: tuple[str, ...] = ()


async def assign(
    bundle: bytes,
    catalog: ModelCatalog,
    settled: Settled,
    placement: Mapping[str, Sequence[str]],
) -> Assignment:
    """Resolve compiled rules and plan every shard.

    Args:
        bundle: the compiled rules.
        catalog: the models that were pushed.
        settled: versions of open steps that are in use and must stay.
        placement: shards by model, in place of those that the rules have.

    Raises:
        ModelConfigError: a model is missing or cannot be served as its files stand.
        BundleError: the bytes are no whole bundle.
    """
    resolution = await catalog.resolve(load_bundle(bundle).targets(), settled)
    resolved = resolve_bundle(bundle, resolution.versions, resolution.steps, placement)
    engine = load_bundle(resolved)
    plans = {
        shard: await catalog.plan(targets, resolution.steps)
        for shard in engine.fleet.shards
        if (targets := targets_on(engine, shard))
    }
    return Assignment(resolved, engine.revision, plans, resolution.notes)


async def closure(catalog: ModelCatalog, targets: Iterable[Target], settled: Settled) -> Plan:
    """What targets need in all, as loads, steps before the ensembles that call them. Raises `ModelConfigError`."""
    targets = tuple(targets)
    resolution = await catalog.resolve(targets, settled)
    resolved = [replace(target, version=resolution.versions[target.name]) for target in targets]
    return await catalog.plan(resolved, resolution.steps)


def targets_on(engine: Engine, shard: str) -> tuple[Target, ...]:
    """The targets that the rules can reach on a shard."""
    return tuple(target for target in engine.targets() if shard in target.shards)
