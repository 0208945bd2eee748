"""A shard of fleet.yaml as the cloud sees it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tidegate.aws.shard_names import label_of
from tidegate.rules.language import ShardSpec

from infra.settings import Settings

_INSTANCE_TYPE = re.compile(r"([a-z]+)([0-9]+)([a-z]*)\.(metal|nano|micro|small|medium|large|[0-9]*xlarge)")
GPUS = {
    **{
        f"{family}.{size}": gpus
        for family in ("g4dn", "g5", "g6", "g6e")
        for size, gpus in (("12xlarge", 4), ("48xlarge", 8))
    },
    **{f"{family}.24xlarge": 4 for family in ("g5", "g6", "g6e")},
    **{f"{family}.{size}xlarge": 1 for family in ("g4dn", "g5", "g6", "g6e") for size in ("", 2, 4, 8, 16)},
    "g4dn.metal": 8,
    "p3.2xlarge": 1,
    "p3.8xlarge": 4,
    "p3.16xlarge": 8,
    "p3dn.24xlarge": 8,
    "p4d.24xlarge": 8,
    "p4de.24xlarge": 8,
    "p5.4xlarge": 1,
    "p5.48xlarge": 8,
    "p5e.48xlarge": 8,
    "p5en.48xlarge": 8,
}
"""GPUs of the instance types that are known here; of any other type one is assumed."""

_GPU_LETTERS = ("g", "gr", "p")
_CPU_LETTERS = ("c", "hpc", "i", "m", "r", "t", "x", "z")
_TOO_OLD = ("g2", "g3", "g3s", "p2")
_ARM = "its CPUs are Arm, and the images are for x86-64"
_GIB_PER_VCPU = {"c": 2, "m": 4, "r": 8}
_VCPUS = {"medium": 1, "large": 2, "xlarge": 4}
AGENT_MIB = 256
"""Memory that a server's agent is placed by."""

KEPT_BY_THE_SYSTEM = 0.08
"""Share of an instance's memory that its kernel and the ECS agent keep for themselves, about."""


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard, with every default filled in.

    `label` is its name where only lower-case letters, digits and hyphens may stand (DNS, load balancers, logical ids).
    `gpus` is how many each server has; without one (0), a server has an instance to itself. `min_instances` and
    `max_instances` hold the servers, `spot_percent` is the share of instances on spot capacity.
    """

    name: str
    label: str
    instance_type: str
    gpus: int
    min_replicas: int
    max_replicas: int
    min_instances: int
    max_instances: int
    spot_percent: int
    scale_to_zero: bool


def has_gpus(instance_type: str) -> bool:
    """Whether an instance type has NVIDIA GPUs."""
    match = _INSTANCE_TYPE.fullmatch(instance_type)
    return match is not None and match[1] in _GPU_LETTERS


def to_shards(specs: Mapping[str, ShardSpec], settings: Settings) -> tuple[Shard, ...]:
    """The shards of fleet.yaml, sorted by name."""
    return tuple(_shard(name, specs[name], settings) for name in sorted(specs))


def _shard(name: str, spec: ShardSpec, settings: Settings) -> Shard:
    fewest = spec.min_replicas
    if fewest is None:
        fewest = 0 if spec.scale_to_zero else min(spec.replicas, spec.max_replicas or spec.replicas)
    most = spec.max_replicas if spec.max_replicas is not None else max(spec.replicas, fewest, 1)
    instance_type = spec.instance_type or settings.triton.default_instance_type
    gpus = settings.triton.gpus_per_replica if has_gpus(instance_type) else 0
    servers_per_instance = max(1, GPUS.get(instance_type, 1) // gpus) if gpus else 1
    return Shard(
        name=name,
        label=label_of(name),
        instance_type=instance_type,
        gpus=gpus,
        min_replicas=fewest,
        max_replicas=most,
        min_instances=-(-fewest // servers_per_instance),
        max_instances=-(-most // servers_per_instance),
        spot_percent=math.floor(spec.spot_percent or 0),
        scale_to_zero=spec.scale_to_zero,
    )


def shard_conflicts(
    specs: Mapping[str, ShardSpec], shards: tuple[Shard, ...], settings: Settings
) -> list[tuple[str, str, str, str]]:
    """What the rules allow and the cloud cannot build: (shard, key or "", what is wrong, what would be right)."""
    found: list[tuple[str, str, str, str]] = []
    labels: dict[str, str] = {}
    for shard in shards:
        name, spec = shard.name, specs[shard.name]
        other = labels.setdefault(shard.label, name)
        if other != name:
            message = f"shards {other!r} and {name!r} have the same label {shard.label!r}"
            found.append((name, "", message, "rename one"))
        found += [(name, key, message, hint) for key, message, hint in _size_conflicts(spec)]
        for key, message, hint in _instance_problems(shard.instance_type, settings):
            # Where fleet.yaml names no type, the stage's default is to blame, and the message names it.
            at = key if getattr(spec, key, None) is not None else ""
            found.append((name, at, message, hint))
        if spec.spot_percent is not None and spec.spot_percent != math.floor(spec.spot_percent):
            message = f"spot_percent {spec.spot_percent:g} is no whole number, and Auto Scaling takes no other"
            found.append((name, "spot_percent", message, "write an integer from 0 to 100"))
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


def _instance_problems(instance_type: str, settings: Settings) -> Iterator[tuple[str, str, str]]:
    problem = _unfit(instance_type)
    if problem:
        hint = "write a type with NVIDIA GPUs such as g4dn.xlarge, g5.xlarge or g6.2xlarge, or one without such as c7i.4xlarge"
        yield "instance_type", f"{instance_type!r} cannot run Triton: {problem}", hint
        return
    triton = settings.triton
    has = GPUS.get(instance_type, triton.gpus_per_replica)
    if has_gpus(instance_type) and has < triton.gpus_per_replica:
        message = f"{instance_type!r} has {has} GPU{'s' if has > 1 else ''}, and a server has {triton.gpus_per_replica}"
        yield "instance_type", message, "write a larger type, or lower the setting triton.gpus_per_replica"
    memory_mib = _memory_mib(instance_type)
    needed_mib = triton.memory_reservation_mib + AGENT_MIB
    if memory_mib is not None and memory_mib * (1 - KEPT_BY_THE_SYSTEM) < needed_mib:
        message = (
            f"{instance_type!r} has {memory_mib / 1024:g} GiB of memory, and a server is placed by {needed_mib} MiB"
        )
        yield "instance_type", message, "write a larger type, or lower the setting triton.memory_reservation_mib"


def _unfit(instance_type: str) -> str:
    """Why Triton cannot run there; empty where it can."""
    match = _INSTANCE_TYPE.fullmatch(instance_type)
    if match is None:
        return "it is no instance type"
    letters, generation, options, _size = match.groups()
    family = letters + generation + options
    if family in _TOO_OLD:
        return "its GPUs are older than the Triton image supports"
    if "g" in options or family == "a1":
        return _ARM
    if letters == "g" and options == "ad":
        return "its GPUs are AMD's"
    if letters not in (*_GPU_LETTERS, *_CPU_LETTERS):
        return "it has neither NVIDIA GPUs nor is it of a family of general use"
    return ""


def _memory_mib(instance_type: str) -> int | None:
    """An instance's memory where its name tells: that of the families c, m and r."""
    match = _INSTANCE_TYPE.fullmatch(instance_type)
    if match is None or match[1] not in _GIB_PER_VCPU:
        return None
    size = match[4]
    many = size.removesuffix("xlarge")
    vcpus = _VCPUS.get(size) or (4 * int(many) if many.isdigit() else None)
    return None if vcpus is None else vcpus * _GIB_PER_VCPU[match[1]] * 1024
