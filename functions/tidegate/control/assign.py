"""Assign: fill in every version and placement that the rules leave open, and compute what each shard must hold."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tidegate.analysis.responses import NEEDLESS_STREAM, STREAM_INSTEAD, needless_streams, refused_by_infer
from tidegate.control.desired import Desired
from tidegate.control.plane import ControlPlane
from tidegate.control.plans import Plan, merge
from tidegate.errors import BundleError, PublishError, StackError
from tidegate.placement import Move, PlacementPlan
from tidegate.ports import ModelCatalog, Resolution
from tidegate.ports.sources import CheckedRules, ModelsSource
from tidegate.rules import Engine, Target, load_bundle
from tidegate.rules.resolved import resolve_bundle

BYTES_PER_MB = 1_000_000

Settled = Mapping[str, Mapping[str, int]]
"""The versions of open steps that are in use and must stay, by ensemble and step."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """Rules with nothing left open.

    Attributes:
        plans: what each shard must hold; a shard that must hold nothing is left out.
        notes: the choices that the rules left open and that were made here.
        moves: the models that the planner moved, and why.
    """

    bundle: bytes
    revision: str
    plans: Mapping[str, Plan]
    notes: tuple[str, ...] = ()
    moves: tuple[Move, ...] = ()


async def assign(
    plane: ControlPlane, checked: CheckedRules, desired: Desired, models: ModelsSource | None
) -> Assignment:
    """Place and resolve rules, and plan every shard.

    Args:
        models: a folder of models, over those that were pushed; None: these alone.

    Raises:
        PublishError: an objective of one response serves a model that may give several.
        StackError: not everything fits on the shards, or a model's files cannot be served.
    """
    settled = await settled_steps(plane, desired)
    catalog = plane.ports.catalog.fresh() if models is None else models.catalog
    known, _ = merge(desired.published)
    # An ensemble whose open steps were pinned is read again, as a load does not say which these were.
    catalog.learn(load for load in known if load.model not in settled)
    placed = await _place(plane, checked, await live_engine(plane, desired), catalog, models, settled)
    resolution = await catalog.resolve(load_bundle(checked.bundle).targets(), settled)
    placement = {} if placed is None else placed.placement
    bundle = resolve_bundle(checked.bundle, resolution.versions, resolution.steps, placement)
    engine = load_bundle(bundle)
    _check_responses(engine, resolution)
    plans = {
        shard: await catalog.plan(targets, resolution.steps)
        for shard in engine.fleet.shards
        if (targets := tuple(target for target in engine.targets() if shard in target.shards))
    }
    moves = () if placed is None else tuple(placed.moves)
    notes = (*resolution.notes, *_ranking_notes(engine, resolution), *_stream_notes(engine, resolution))
    return Assignment(bundle, engine.revision, plans, notes, moves)


def _check_responses(engine: Engine, resolution: Resolution) -> None:
    """Refuse rules whose objectives of one response serve a model that `infer` refuses.

    Raises:
        PublishError: there are such objectives; it names them and their models.
    """
    refused = refused_by_infer(engine, resolution.decoupled)
    if refused:
        found = (
            f"{name} serves {', '.join(sorted({each.model for each in targets}))}" for name, targets in refused.items()
        )
        raise PublishError(
            "assign", f"models with decoupled responses, which infer refuses: {'; '.join(found)}; {STREAM_INSTEAD}"
        )


def _stream_notes(engine: Engine, resolution: Resolution) -> Iterator[str]:
    """Yield the objectives that make their callers ask for a stream without need."""
    for name in needless_streams(engine, resolution.decoupled):
        yield f"objective {name!r}: {NEEDLESS_STREAM}"


def _ranking_notes(engine: Engine, resolution: Resolution) -> Iterator[str]:
    """Yield the objectives whose ranking is not compared where one of their models answers."""
    for name, objective in engine.objectives.items():
        if objective.ranking is None:
            continue
        output, models = objective.ranking.output, {each.model for each in engine.targets(name)}
        lacking = sorted(model for model in models if output not in resolution.rankable.get(model, (output,)))
        if lacking:
            yield (
                f"objective {name!r} ranks by {output!r}, which is not an output of integers or text of {', '.join(lacking)}: "
                "their answers are not compared as rankings"
            )


async def plan_targets(catalog: ModelCatalog, targets: Iterable[Target], settled: Settled) -> Plan:
    """Return the loads that targets need together, steps before the ensembles that call them. Raises `ModelConfigError`."""
    targets = tuple(targets)
    return await _plan(catalog, targets, await catalog.resolve(targets, settled))


async def _plan(catalog: ModelCatalog, targets: Iterable[Target], resolution: Resolution) -> Plan:
    resolved = [replace(target, version=resolution.versions[target.name]) for target in targets]
    return await catalog.plan(resolved, resolution.steps)


async def live_engine(plane: ControlPlane, desired: Desired) -> Engine | None:
    """Return the live rules; None if there are none, or they are damaged, which status reports and a publish repairs."""
    if desired.pointer is None:
        return None
    try:
        return await plane.reader.engine(desired.pointer.live.revision)
    except BundleError:
        return None


async def settled_steps(plane: ControlPlane, desired: Desired) -> Settled:
    """Return the versions of open steps of the revisions whose models are loaded; the live one's count most."""
    settled: dict[str, dict[str, int]] = {}
    for held in desired.held:
        try:
            bundle = await plane.reader.bundle(held.revision)
        except BundleError:
            # It is damaged: status reports that, and a publish repairs it.
            continue
        for ensemble, pins in (bundle.manifest.steps or {}).items():
            settled[ensemble] = {**pins, **settled.get(ensemble, {})}
    return settled


async def _place(
    plane: ControlPlane,
    checked: CheckedRules,
    live: Engine | None,
    catalog: ModelCatalog,
    models: ModelsSource | None,
    settled: Settled,
) -> PlacementPlan | None:
    """Place every model, moving as few as possible; None if nothing is left to the planner.

    A model that declares no memory counts with the size of its files, the least that it takes.
    """
    demand = checked.demand
    if not demand.auto:
        return None
    engine = load_bundle(checked.bundle)
    resolution = await catalog.resolve(engine.targets(), settled)
    targets: dict[str, list[Target]] = {}
    for target in engine.targets():
        targets.setdefault(target.model, []).append(target)
    plans = {model: await _plan(catalog, group, resolution) for model, group in targets.items()}
    sizes = await _undeclared_sizes(plane, checked, plans.values(), models)
    needs = {
        model: {load.model: -(-sizes.get(load.model, 0) // BYTES_PER_MB) for load in plan}
        for model, plan in plans.items()
    }
    placed = await asyncio.to_thread(demand.plan, needs, None if live is None else live.fleet.models)
    if placed.problems:
        raise StackError("the models do not fit on the shards\n" + "\n".join(map(str, placed.problems)))
    return placed


async def _undeclared_sizes(
    plane: ControlPlane, checked: CheckedRules, plans: Iterable[Plan], models: ModelsSource | None
) -> dict[str, int]:
    """Return the size of the files, in bytes, of each model whose memory the rules do not declare."""
    loads = {(load.model, load.versions) for plan in plans for load in plan}
    undeclared = {
        (model, version)
        for model, versions in loads
        if checked.demand.declared_mb(model) is None
        for version in versions
    }

    async def size_of(model: str, version: int) -> int:
        size_bytes = None if models is None else await models.size_bytes(model, version)
        if size_bytes is not None:
            return size_bytes
        return sum(file.size_bytes for file in await plane.ports.models.files(model, version))

    sizes: dict[str, int] = {}
    found: Sequence[int] = await asyncio.gather(*(size_of(*unit) for unit in undeclared))
    for (model, _), size_bytes in zip(undeclared, found, strict=True):
        sizes[model] = sizes.get(model, 0) + size_bytes
    return sizes
