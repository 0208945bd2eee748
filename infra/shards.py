"""A shard of fleet.yaml as the cloud sees it."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from tidegate.rules.language import ShardSpec

from infra.settings import Settings

MAX_LABEL = 24
"""Longest label; a readable part and the 9 characters of a digest fit in."""

_PLAIN = re.compile(r"^[a-z]([a-z0-9-]*[a-z0-9])?$")
_GPU_FAMILY = re.compile(r"^(g[0-9]|gr[0-9]|p[0-9])")
_INSTANCE_TYPE = re.compile(r"^[a-z][a-z0-9-]*\.[a-z0-9-]+$")
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

_NO_NVIDIA = {"g4ad": "its GPUs are AMD's", "g5g": "its CPUs are Arm, and the Triton image is for x86-64"}


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard, with every default filled in.

    `label` is its name where only lower-case letters, digits and hyphens may stand (DNS, load balancers, logical ids).
    `min_instances` and `max_instances` hold its servers by their GPUs, `spot_percent` is the share of them on spot capacity.
    """

    name: str
    label: str
    instance_type: str
    min_replicas: int
    max_replicas: int
    min_instances: int
    max_instances: int
    spot_percent: int
    scale_to_zero: bool


def label_of(name: str) -> str:
    """The label of a shard: its name where that is one already, else a readable part and a digest of the name.

    It depends on the name alone, so that no shard is rebuilt because another comes or goes.
    """
    if _PLAIN.match(name) and len(name) <= MAX_LABEL and "--" not in name:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    readable = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if not readable[:1].isalpha():
        readable = f"s{readable}"
    return f"{readable[: MAX_LABEL - 9].strip('-')}-{digest}"


def to_shards(specs: Mapping[str, ShardSpec], settings: Settings) -> tuple[Shard, ...]:
    """The shards of fleet.yaml, sorted by name."""
    return tuple(_shard(name, specs[name], settings) for name in sorted(specs))


def _shard(name: str, spec: ShardSpec, settings: Settings) -> Shard:
    fewest = spec.min_replicas
    if fewest is None:
        fewest = 0 if spec.scale_to_zero else min(spec.replicas, spec.max_replicas or spec.replicas)
    most = spec.max_replicas if spec.max_replicas is not None else max(spec.replicas, fewest, 1)
    instance_type = spec.instance_type or settings.triton.default_instance_type
    servers_per_instance = max(1, GPUS.get(instance_type, 1) // settings.triton.gpus_per_replica)
    return Shard(
        name=name,
        label=label_of(name),
        instance_type=instance_type,
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
        problem = _instance_problem(shard.instance_type, settings.triton.gpus_per_replica)
        if problem:
            hint = "write a type with NVIDIA GPUs, such as g4dn.xlarge, g5.xlarge or g6.2xlarge"
            found.append((name, "instance_type", f"{shard.instance_type!r} cannot run Triton: {problem}", hint))
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


def _instance_problem(instance_type: str, gpus: int) -> str:
    family = instance_type.partition(".")[0]
    if not _INSTANCE_TYPE.match(instance_type):
        return "it is no instance type"
    if family in _NO_NVIDIA:
        return _NO_NVIDIA[family]
    if not _GPU_FAMILY.match(family):
        return "it has no NVIDIA GPU"
    has = GPUS.get(instance_type, gpus)
    return f"it has {has} GPUs, and the setting triton.gpus_per_replica is {gpus}" if has < gpus else ""
