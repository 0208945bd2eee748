"""The instance types that EC2 has, from AWS's own answers to DescribeInstanceTypes, which moto ships."""

from __future__ import annotations

import difflib
import functools
import gzip
import importlib.resources
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from infra.setting_groups import StatedType

_TOO_OLD = "its GPUs are older than the Triton image supports"
_AMD = "its GPUs are AMD's"
_RETIRED = {"g2": _TOO_OLD, "g3": _TOO_OLD, "g3s": _TOO_OLD, "p2": _TOO_OLD, "g4ad": _AMD}
"""Families that AWS's answers no longer list, and why Triton cannot run there."""

_ARM = "its CPUs are Arm, and the images are for x86-64"
_OTHER = "it has neither NVIDIA GPUs nor is it for general use: its accelerators are of another kind"
_OTHER_ACCELERATORS = ("NeuronInfo", "FpgaInfo", "InferenceAcceleratorInfo", "MediaAcceleratorInfo")


@dataclass(frozen=True, slots=True)
class InstanceType:
    """An instance type that Triton can run on. `gpus` counts whole GPUs and partitions of one alike; `interfaces` are the network
    interfaces that it may have, None where it is unknown."""

    gpus: int
    memory_mib: int
    interfaces: int | None


class UnfitTypeError(ValueError):
    """Triton cannot run on an instance type, or the type is unknown."""


def find_type(name: str, stated: Mapping[str, StatedType]) -> InstanceType:
    """Return the properties of an instance type; the setting `triton.instance_types` overrides AWS's data.

    Raises:
        UnfitTypeError: Triton cannot run there, or nothing is known of it.
    """
    if name in stated:
        own = stated[name]
        return InstanceType(own.gpus, round(own.memory_gib * 1024), own.network_interfaces)
    family = name.partition(".")[0]
    if family in _RETIRED:
        raise UnfitTypeError(_RETIRED[family])
    described = _described().get(name)
    if described is None:
        close = difflib.get_close_matches(name, _described(), 1, 0.8)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise UnfitTypeError(
            f"it is not a known instance type{hint}; of one that is new, state GPUs and memory in the setting "
            "triton.instance_types"
        )
    if "x86_64" not in described["ProcessorInfo"]["SupportedArchitectures"]:
        raise UnfitTypeError(_ARM)
    if any(each in described for each in _OTHER_ACCELERATORS):
        raise UnfitTypeError(_OTHER)
    gpus = described.get("GpuInfo", {}).get("Gpus", ())
    if any(each["Manufacturer"] != "NVIDIA" for each in gpus):
        raise UnfitTypeError(_AMD)
    # A partition of a GPU counts as none, and as one logical GPU.
    count = sum(each.get("LogicalGpuCount") or each["Count"] for each in gpus)
    interfaces = described["NetworkInfo"]["MaximumNetworkInterfaces"]
    return InstanceType(count, described["MemoryInfo"]["SizeInMiB"], interfaces)


@functools.cache
def _described() -> dict[str, Any]:
    file = importlib.resources.files("moto.ec2") / "resources" / "instance_types.json.gz"
    data: dict[str, Any] = json.loads(gzip.decompress(file.read_bytes()))
    return data
