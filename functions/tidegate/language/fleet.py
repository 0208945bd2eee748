"""Checks fleet.yaml and the manifests of images, and places the models whose shards fleet.yaml leaves to the planner.

A manifest is a small YAML file, made by `tidegate models image describe` or by hand.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field, StrictStr

from tidegate.language import no_effect
from tidegate.language.documents import EVERYTHING, FleetFile, Model, PlacementSpec
from tidegate.language.program import NO_FLEET, Layer, World
from tidegate.language.shape import Note, Report, check_shape
from tidegate.language.source import Location, Source, items_at
from tidegate.language.words import did_you_mean
from tidegate.placement import EVERYONE, FleetDemand, ModelDemand, ShardCapacity
from tidegate.rules.contract import Fleet, Shard

AUTO = "auto"


def check_fleet(source: Source, layers: Mapping[str, Layer], report: Report, note: Note) -> World:
    """Return the world of the rules; `known` is False if the file could not be read completely."""
    fleet = check_shape(FleetFile, source.data, report) if source.data is not None else None
    if fleet is None:
        return World(NO_FLEET, layers, known=False)
    for model, placement in fleet.models.items():
        _check_pins(model, placement, fleet, report)
        _check_demand(model, placement, fleet, report)
    for step in fleet.steps:
        if step in fleet.models:
            message = f"{step!r} is both under models and under steps"
            report(("steps", step), message, "keep its memory_mb under models, and delete it here")
    _check_tenants(fleet, report)
    _check_aliases(fleet, report)
    for name, spec in fleet.shards.items():
        if spec.min_replicas is not None and spec.max_replicas is not None and spec.min_replicas > spec.max_replicas:
            report(("shards", name), "min_replicas is above max_replicas", "make min_replicas the smaller")
    if not report.count:
        no_effect.of_fleet(fleet, note)
    demand = _demand(fleet)
    shards = {name: Shard(name, spec.replicas, spec.scale_to_zero) for name, spec in fleet.shards.items()}
    return World(
        Fleet(shards, _placed(demand, report), fleet.aliases),
        layers,
        known=not source.problems,
        demand=demand,
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


def _check_tenants(fleet: FleetFile, report: Report) -> None:
    for tenant, spec in fleet.tenants.items():
        for index, (place, other) in enumerate(items_at(spec.apart_from, ("tenants", tenant, "apart_from"))):
            if other == tenant:
                report(place, f"tenant {tenant!r} cannot be kept apart from itself", "name other tenants")
            elif other != EVERYTHING and other not in fleet.tenants:
                hint = did_you_mean(other, set(fleet.tenants) - {tenant}, "tenant")
                report(place, f"unknown tenant {other!r}", f"declare it under tenants; {hint}")
            if other in spec.others[:index]:
                report(place, f"tenant {tenant!r} names {other!r} twice", "keep one")


def _check_aliases(fleet: FleetFile, report: Report) -> None:
    for alias, target in fleet.aliases.items():
        if "@" in target:
            report(("aliases", alias), f"alias {alias!r} points to another alias", "name a model or model/version")
        elif target.partition("/")[0] not in fleet.models:
            hint = did_you_mean(target.partition("/")[0], set(fleet.models), "model")
            report(("aliases", alias), f"alias {alias!r} points to an unknown model", hint)


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
            for tenant, spec in fleet.tenants.items()
            for other in spec.others
        ),
    )


def _placed(demand: FleetDemand, report: Report) -> dict[str, tuple[str, ...]]:
    """Return the shards of every model; those of auto models are planned from the declarations alone, for an empty fleet."""
    everywhere = tuple(shard.name for shard in demand.shards)
    shards = {model: each.pins or everywhere for model, each in demand.models.items()}
    if report.count or demand.is_trivial:
        return shards
    plan = demand.plan()
    for problem in plan.problems:
        at: Location = ("models", problem.model) if problem.model else ("shards", problem.shard)
        report(at, problem.message, problem.hint)
    return shards | dict(plan.placement)


class ImageFile(Model):
    """A manifest: the content of an image of model servers."""

    image: StrictStr = Field(description="The image's name, with its tag.")
    base: StrictStr | None = Field(
        None, description="An image of NVIDIA's that it is built on, whose contents it has too."
    )
    python: StrictStr | None = Field(None, description="The version of its Python, for readers.")
    backends: list[StrictStr] = Field([], description="The backends in /opt/tritonserver/backends.")
    modules: list[StrictStr] = Field(
        [], description="Python modules beside the standard library, by their first names."
    )
    distributions: Mapping[StrictStr, StrictStr] = Field({}, description="Installed distributions, for readers.")
    complete: list[Literal["backends", "modules"]] = Field(
        [], description="Which of these lists are all there is; what they lack is then an error, not a warning."
    )


def check_images(world: World, manifests: Sequence[tuple[Source, Report, Note]], of_fleet: Report) -> None:
    """Check every manifest, and that each shard's is of the image that it runs; `of_fleet` takes mistakes of fleet.yaml."""
    names: dict[str, str | None] = {}
    named = {manifest for _, manifest in world.images.values()}
    for source, report, note in manifests:
        spec = check_shape(ImageFile, source.data, report) if source.data is not None else None
        names[source.file] = None if spec is None else spec.image
        if world.known and source.file not in named:
            note((), "no shard names this manifest", "name it in the image of a shard, or delete it")
    for shard, (image, manifest) in world.images.items():
        at: Location = ("shards", shard, "image")
        if manifest is None:
            continue
        if manifest not in names:
            of_fleet((*at, "manifest"), f"there is no {manifest}", "write it, or correct the name")
        elif (other := names[manifest]) is not None and other != image:
            of_fleet((*at, "name"), *other_image(shard, image, manifest, other))


def other_image(shard: str, runs: str, manifest: str, names: str) -> tuple[str, str]:
    """Return the message and the hint for a shard whose manifest is of another image than it runs."""
    message = f"shard {shard!r} runs image {runs!r}, and its manifest {manifest} is of image {names!r}"
    return message, "give both the same name and tag, once the manifest says what that image holds"
