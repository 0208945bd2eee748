"""What the GPUs under Triton servers report: use and memory by Triton itself, faults by NVIDIA's DCGM exporter beside it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tidegate.control.prometheus import Sample

UTILISATION = "nv_gpu_utilization"
MEMORY_USED = "nv_gpu_memory_used_bytes"
MEMORY_TOTAL = "nv_gpu_memory_total_bytes"
"""Of Triton: https://github.com/triton-inference-server/server/blob/main/docs/user_guide/metrics.md#gpu-metrics"""

XID = "DCGM_FI_DEV_XID_ERRORS"
ECC = "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL"
"""Of DCGM: a GPU's last error, and its memory errors that could not be corrected."""

XIDS_OF_PROGRAMS = frozenset({0, 13, 31, 43, 45, 68})
"""No error, and errors that a program makes, by https://docs.nvidia.com/deploy/xid-errors: another GPU would not help."""

_ID = ("gpu_uuid", "UUID")


@dataclass(frozen=True, slots=True)
class GpuLoad:
    """GPUs of a shard or a server.

    `utilisation` is the share of time that each was busy, and `memory` the used share of each one's memory, by its id;
    `faults` are the ids of those that are broken, None where no exporter says.
    """

    utilisation: dict[str, float] = field(default_factory=dict)
    memory: dict[str, float] = field(default_factory=dict)
    faults: frozenset[str] | None = None


def gpu_load(triton: Iterable[Sample], exporter: Iterable[Sample] | None) -> GpuLoad:
    """The GPUs of one server.

    Args:
        triton: Triton's metrics.
        exporter: those of the DCGM exporter; None where there is none.
    """
    found: dict[str, dict[str, float]] = {UTILISATION: {}, MEMORY_USED: {}, MEMORY_TOTAL: {}}
    for name, gpu, value in _of_gpus(triton, found):
        found[name][gpu] = value
    totals = {gpu: total for gpu, total in found[MEMORY_TOTAL].items() if total > 0}
    memory = {gpu: min(1.0, used / totals[gpu]) for gpu, used in found[MEMORY_USED].items() if gpu in totals}
    faults = None
    if exporter is not None:
        faults = frozenset(
            gpu
            for name, gpu, value in _of_gpus(exporter, (XID, ECC))
            if (name == XID and value not in XIDS_OF_PROGRAMS) or (name == ECC and value > 0)
        )
    return GpuLoad({gpu: min(1.0, value) for gpu, value in found[UTILISATION].items()}, memory, faults)


def together(loads: Iterable[GpuLoad]) -> GpuLoad:
    """The GPUs of several servers, some of which may share one."""
    utilisation: dict[str, float] = {}
    memory: dict[str, float] = {}
    faults: frozenset[str] | None = None
    for load in loads:
        utilisation |= load.utilisation
        memory |= load.memory
        if load.faults is not None:
            faults = (faults or frozenset()) | load.faults
    return GpuLoad(utilisation, memory, faults)


def _of_gpus(samples: Iterable[Sample], metrics: Iterable[str]) -> Iterator[tuple[str, str, float]]:
    """(metric, GPU, value) of the samples of some metrics; what is not a number of at least 0 is left out."""
    wanted = frozenset(metrics)
    for sample in samples:
        if sample.metric in wanted and 0 <= sample.value < math.inf and (gpu := sample.label(*_ID)) is not None:
            yield sample.metric, gpu, sample.value
