"""Checks fleet.yaml, and places the models whose shards it leaves to the planner."""

from __future__ import annotations

from collections.abc import Mapping

from tidegate.rules import no_effect
from tidegate.rules.language import EVERYTHING, FleetFile, PlacementSpec
from tidegate.rules.placement import EVERYONE, FleetDemand, ModelDemand, ShardCapacity
from tidegate.rules.program import Layer, World
from tidegate.rules.shape import Report, check_shape, did_you_mean
from tidegate.rules.source import Location, Source
from tidegate.rules.spare_conditions import Note

AUTO = "auto"


def read_fleet(source: Source, report: Report, layers: Mapping[str, Layer], note: Note) -> World:
    """The world of the rules; `known` is False where the file could not be read, or not all of it."""
    fleet = check_shape(FleetFile, source.data, report) if source.data is not None else None
    if fleet is None:
        return World({}, {}, {}, layers, known=False)
    for model, placement in fleet.models.items():
        _check_pins(model, placement, fleet, report)
        _check_demand(model, placement, fleet, report)
    _check_steps(fleet, report)
    _check_tenants(fleet, report)
    _check_aliases(fleet, report)
    for name, spec in fleet.shards.items():
        if spec.min_replicas is not None and spec.max_replicas is not None and spec.min_replicas > spec.max_replicas:
            report(("shards", name), "min_replicas is above max_replicas", "make min_replicas the smaller")
    if not report.count:
        no_effect.of_fleet(fleet, note)
    demand = _demand(fleet)
    return World(
        {name: spec.replicas for name, spec in fleet.shards.items()},
        _placed(demand, report),
        fleet.aliases,
        layers,
        known=not source.problems,
        demand=demand,
        sleepers=frozenset(name for name, spec in fleet.shards.items() if spec.scale_to_zero),
        images={
            name: (spec.image.name, spec.image.manifest)
            for name, spec in fleet.shards.items()
            if spec.image is not None
        },
    )


def _check_pins(model: str, placement: PlacementSpec, fleet: FleetFile, report: Report) -> None:
    if placement.shards == AUTO:
        return
    for index, shard in enumerate(placement.shards):
        at: Location = ("models", model, "shards", index)
        if shard == AUTO and shard not in fleet.shards:
            report(at, f"model {model!r} has shards and 'auto'", "write shards: auto, or name its shards alone")
        elif shard not in fleet.shards:
            hint = did_you_mean(shard, set(fleet.shards), "shard")
            report(at, f"model {model!r} is placed on the unknown shard {shard!r}", hint)
        if shard in placement.shards[:index]:
            report(at, f"model {model!r} names shard {shard!r} twice", "keep one")


def _check_demand(model: str, placement: PlacementSpec, fleet: FleetFile, report: Report) -> None:
    at: Location = ("models", model)
    if placement.replicas is not None:
        if placement.shards != AUTO:
            message = f"model {model!r} names its shards and has replicas, which is for the planner"
            report((*at, "replicas"), message, "delete replicas, or write shards: auto")
        elif placement.replicas > len(fleet.shards):
            message = f"model {model!r} asks for {placement.replicas} shards, and the fleet has {len(fleet.shards)}"
            report((*at, "replicas"), message, "lower its replicas, or add a shard")
    if placement.memory_mb is not None:
        limits = [spec.memory_mb for spec in fleet.shards.values()]
        largest = max((limit for limit in limits if limit is not None), default=0)
        if None not in limits and placement.memory_mb > largest:
            message = f"model {model!r} needs {placement.memory_mb} MB, and the largest shard has {largest}"
            report((*at, "memory_mb"), message, f"give a shard a memory_mb of at least {placement.memory_mb}")
    if placement.tenant is not None and placement.tenant not in fleet.tenants:
        hint = did_you_mean(placement.tenant, set(fleet.tenants), "tenant")
        message = f"model {model!r} belongs to the unknown tenant {placement.tenant!r}"
        report((*at, "tenant"), message, f"declare it under tenants; {hint}")


def _check_steps(fleet: FleetFile, report: Report) -> None:
    for step in fleet.steps:
        if step in fleet.models:
            message = f"{step!r} is both under models and under steps"
            report(("steps", step), message, "keep its memory_mb under models, and delete it here")


def _check_tenants(fleet: FleetFile, report: Report) -> None:
    for tenant, others in _apart_from(fleet).items():
        at: Location = ("tenants", tenant, "apart_from")
        listed = isinstance(fleet.tenants[tenant].apart_from, list)
        for index, other in enumerate(others):
            place: Location = (*at, index) if listed else at
            if other == tenant:
                report(place, f"tenant {tenant!r} cannot be kept apart from itself", "name other tenants")
            elif other != EVERYTHING and other not in fleet.tenants:
                hint = did_you_mean(other, set(fleet.tenants) - {tenant}, "tenant")
                report(place, f"unknown tenant {other!r}", f"declare it under tenants; {hint}")
            if other in others[:index]:
                report(place, f"tenant {tenant!r} names {other!r} twice", "keep one")


def _check_aliases(fleet: FleetFile, report: Report) -> None:
    for alias, target in fleet.aliases.items():
        if "@" in target:
            report(("aliases", alias), f"alias {alias!r} points to another alias", "name a model or model/version")
        elif target.partition("/")[0] not in fleet.models:
            hint = did_you_mean(target.partition("/")[0], set(fleet.models), "model")
            report(("aliases", alias), f"alias {alias!r} points to an unknown model", hint)


def _apart_from(fleet: FleetFile) -> dict[str, list[str]]:
    return {
        tenant: spec.apart_from if isinstance(spec.apart_from, list) else [spec.apart_from]
        for tenant, spec in fleet.tenants.items()
    }


def _demand(fleet: FleetFile) -> FleetDemand:
    return FleetDemand(
        tuple(ShardCapacity(name, spec.memory_mb, spec.traffic_per_s) for name, spec in fleet.shards.items()),
        {
            model: ModelDemand(
                () if spec.shards == AUTO else tuple(spec.shards),
                spec.memory_mb,
                spec.traffic_per_s or 0.0,
                spec.replicas,
                spec.tenant,
            )
            for model, spec in fleet.models.items()
        },
        {step: spec.memory_mb for step, spec in fleet.steps.items()},
        tuple(
            (tenant, EVERYONE if other == EVERYTHING else other)
            for tenant, others in _apart_from(fleet).items()
            for other in others
        ),
    )


def _placed(demand: FleetDemand, report: Report) -> dict[str, tuple[str, ...]]:
    """The shards of every model; those of auto models by what is declared alone, from nothing."""
    everywhere = tuple(shard.name for shard in demand.shards)
    shards = {model: each.pins or everywhere for model, each in demand.models.items()}
    if report.count or demand.is_trivial:
        return shards
    plan = demand.plan()
    for problem in plan.problems:
        at: Location = ("models", problem.model) if problem.model else ("shards", problem.shard)
        report(at, problem.message, problem.hint)
    return shards | dict(plan.placement)
