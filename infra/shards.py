"""A shard of fleet.yaml as the cloud sees it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tidegate.aws.shard_names import label_of
from tidegate.language.documents import ShardSpec

from infra.instance_types import InstanceType, UnfitTypeError, find_type
from infra.settings import Settings

ENVOY = "envoy"
"""The part of names that Envoy's resources have, as a shard's have its label."""

EXPORTER_MIB = 128
"""Memory that the DCGM exporter beside a server is placed by."""

AGENT_MIB = 256
"""Memory that a server's agent is placed by."""

KEPT_BY_THE_SYSTEM = 0.08
"""Share of an instance's memory that its kernel and the ECS agent keep for themselves, about."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard, with every default filled in.

    `label` is its name where only lower-case letters, digits and hyphens are allowed (DNS, load balancers, logical ids).
    `alternative_types` are tried where `instance_type` cannot be had.
    `gpus` is how many each server has; without one (0), a server has an instance to itself. `min_instances` and
    `max_instances` hold the servers, `spot_percent` is the share of instances on spot capacity.
    """

    name: str
    label: str
    instance_type: str
    alternative_types: tuple[str, ...]
    gpus: int
    min_replicas: int
    max_replicas: int
    min_instances: int
    max_instances: int
    spot_percent: int
    scale_to_zero: bool

    @property
    def keeps_the_pointer(self) -> bool:
        """Whether functions may poll the pointer at its agents: their requests would keep a shard awake, or wake it."""
        return not self.scale_to_zero


def to_shards(specs: Mapping[str, ShardSpec], settings: Settings) -> tuple[Shard, ...]:
    """Return the shards of fleet.yaml, sorted by name."""
    return tuple(_shard(name, specs[name], settings) for name in sorted(specs))


def _shard(name: str, spec: ShardSpec, settings: Settings) -> Shard:
    fewest = spec.min_replicas
    if fewest is None:
        fewest = 0 if spec.scale_to_zero else min(spec.replicas, spec.max_replicas or spec.replicas)
    most = spec.max_replicas if spec.max_replicas is not None else max(spec.replicas, fewest, 1)
    instance_type = spec.instance_type or settings.triton.default_instance_type
    try:
        has = find_type(instance_type, settings.triton.instance_types).gpus
    except UnfitTypeError:
        has = 0  # reported by `shard_conflicts`
    gpus = settings.triton.gpus_per_replica if has else 0
    servers_per_instance = _servers_per_instance((instance_type, *spec.alternative_types), gpus, settings)
    return Shard(
        name=name,
        label=label_of(name),
        instance_type=instance_type,
        alternative_types=tuple(spec.alternative_types),
        gpus=gpus,
        min_replicas=fewest,
        max_replicas=most,
        min_instances=-(-fewest // servers_per_instance),
        max_instances=-(-most // servers_per_instance),
        spot_percent=math.floor(spec.spot_percent or 0),
        scale_to_zero=spec.scale_to_zero,
    )


def _servers_per_instance(instance_types: tuple[str, ...], gpus: int, settings: Settings) -> int:
    """How many servers fit on an instance of any of the types, by GPUs, memory and network interfaces; at least one, since a type
    on which none fits is reported by `shard_conflicts`."""
    if not gpus:
        return 1
    fit: list[int] = []
    for name in instance_types:
        try:
            found = find_type(name, settings.triton.instance_types)
        except UnfitTypeError:
            continue
        fit += [found.gpus // gpus, math.floor(_usable_mib(found) / _needed_mib(found, settings))]
        if found.interfaces is not None:
            # Each server has an interface of its own, and the instance one.
            fit.append(found.interfaces - 1)
    return max(1, min(fit, default=1))


def _usable_mib(found: InstanceType) -> float:
    return found.memory_mib * (1 - KEPT_BY_THE_SYSTEM)


def _needed_mib(found: InstanceType, settings: Settings) -> int:
    """Return the memory for which a task is placed: the server and its other containers."""
    has_exporter = found.gpus and settings.triton.dcgm_exporter_tag is not None
    return settings.triton.memory_reservation_mib + AGENT_MIB + (EXPORTER_MIB if has_exporter else 0)


def shard_conflicts(
    specs: Mapping[str, ShardSpec], shards: tuple[Shard, ...], settings: Settings
) -> list[tuple[str, str, str, str]]:
    """Return what the rules allow and AWS cannot build: (shard, key or "", problem, advice)."""
    found: list[tuple[str, str, str, str]] = []
    labels: dict[str, str] = {}
    for shard in shards:
        name, spec = shard.name, specs[shard.name]
        other = labels.setdefault(shard.label, name)
        if other != name:
            message = f"shards {other!r} and {name!r} have the same label {shard.label!r}"
            found.append((name, "", message, "rename one"))
        if settings.data_plane == "envoy" and shard.label == ENVOY:
            found.append((name, "", f"shard {name!r} has the name of Envoy's resources", "rename it"))
        found += [(name, key, message, hint) for key, message, hint in _size_conflicts(spec)]
        # Where fleet.yaml names no type, the stage's default is to blame, and the message names it.
        at = "instance_type" if spec.instance_type is not None else ""
        found += [(name, at, *problem) for problem in _instance_problems(shard.instance_type, settings)]
        found += [(name, "alternative_types", *problem) for problem in _alternative_problems(shard, settings)]
        if spec.spot_percent is not None and spec.spot_percent != math.floor(spec.spot_percent):
            message = f"spot_percent {spec.spot_percent:g} is not a whole number, and Auto Scaling takes no other"
            found.append((name, "spot_percent", message, "write an integer from 0 to 100"))
    if settings.pointer_cache and shards and not any(shard.keeps_the_pointer for shard in shards):
        message = "every shard may be without a server, and the setting pointer_cache needs an agent that always runs"
        hint = "delete scale_to_zero of a shard, or the setting pointer_cache"
        found.append((shards[0].name, "scale_to_zero", message, hint))
    return found


def _size_conflicts(spec: ShardSpec) -> list[tuple[str, str, str]]:
    fewest, most = spec.min_replicas, spec.max_replicas
    if spec.scale_to_zero and fewest:
        return [("min_replicas", f"min_replicas is {fewest} and scale_to_zero is true", "delete one of them")]
    if fewest == 0 and not spec.scale_to_zero:
        hint = "write scale_to_zero: true and read the cold path in docs/operations.md, or min_replicas: 1"
        return [("min_replicas", "min_replicas is 0 without scale_to_zero", hint)]
    if most is not None and not spec.scale_to_zero and "replicas" in spec.model_fields_set and spec.replicas > most:
        return [("max_replicas", f"max_replicas {most} is below replicas {spec.replicas}", "make it at least that")]
    return []


def _instance_problems(instance_type: str, settings: Settings) -> Iterator[tuple[str, str]]:
    """Return the problems of an instance type: (problem, advice)."""
    triton = settings.triton
    try:
        found = find_type(instance_type, triton.instance_types)
    except UnfitTypeError as error:
        hint = "write a type with NVIDIA GPUs such as g4dn.xlarge, g5.xlarge or g6.2xlarge, or one without such as c7i.4xlarge"
        yield f"{instance_type!r} cannot run Triton: {error}", hint
        return
    if 0 < found.gpus < triton.gpus_per_replica:
        noun = "GPU" if found.gpus == 1 else "GPUs"
        message = f"{instance_type!r} has {found.gpus} {noun}, and a server has {triton.gpus_per_replica}"
        yield message, "write a larger type, or lower the setting triton.gpus_per_replica"
    needed_mib = _needed_mib(found, settings)
    if _usable_mib(found) < needed_mib:
        message = f"{instance_type!r} has {found.memory_mib / 1024:g} GiB of memory, and a server is placed by {needed_mib} MiB"
        yield message, "write a larger type, or lower the setting triton.memory_reservation_mib"


def _alternative_problems(shard: Shard, settings: Settings) -> Iterator[tuple[str, str]]:
    stated = settings.triton.instance_types
    try:
        wanted = find_type(shard.instance_type, stated).gpus
    except UnfitTypeError:
        return
    for each in shard.alternative_types:
        if each == shard.instance_type or shard.alternative_types.count(each) > 1:
            yield f"{each!r} is named twice", "name each type once"
            continue
        problems = list(_instance_problems(each, settings))
        yield from problems
        if not problems and find_type(each, stated).gpus != wanted:
            message = f"{each!r} has {find_type(each, stated).gpus} GPUs and {shard.instance_type!r} has {wanted}"
            yield message, "write types with the same number: instances are counted by the servers that fit on them"
