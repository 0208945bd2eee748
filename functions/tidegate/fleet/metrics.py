"""Metrics of servers: Prometheus' text format, and what GPUs report: use and memory through Triton itself, faults through
NVIDIA's DCGM exporter beside it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

UTILISATION = "nv_gpu_utilization"
MEMORY_USED = "nv_gpu_memory_used_bytes"
MEMORY_TOTAL = "nv_gpu_memory_total_bytes"
"""Of Triton: https://github.com/triton-inference-server/server/blob/main/docs/user_guide/metrics.md#gpu-metrics"""

XID = "DCGM_FI_DEV_XID_ERRORS"
ECC = "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL"
"""Metrics of DCGM: a GPU's last error, and its memory errors that could not be corrected."""

XIDS_OF_PROGRAMS = frozenset({0, 13, 31, 43, 45, 68})
"""No error, or an error of a program, which another GPU would not help (https://docs.nvidia.com/deploy/xid-errors)."""

_ID = ("gpu_uuid", "UUID")

# https://prometheus.io/docs/instrumenting/exposition_formats/, as far as a probe reads it.
_LINE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)(?: -?[0-9]+)?")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_ESCAPED = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a metric, which may be NaN or infinite. `labels` is the text between the braces."""

    metric: str
    labels: str
    value: float

    def label(self, *names: str) -> str | None:
        """Return the value of the first non-empty label among `names`; None if there is none."""
        for name, value in _LABEL.findall(self.labels):
            if name in names and value:
                return _ESCAPED.sub(lambda match: "\n" if match[1] == "n" else match[1], value)
        return None


def parse_samples(text: str) -> list[Sample]:
    """Return every sample of a text. Raises `ValueError` for a malformed line."""
    found = []
    for line in text.split("\n"):
        if not line.strip() or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line.rstrip())
        if match is None:
            raise ValueError("a line is not a sample of a metric")
        found.append(Sample(match[1], match[2] or "", float(match[3])))
    return found


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
    """Return the GPUs of one server, from Triton's metrics and those of the DCGM exporter; None if it has none."""
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
    """Combine the GPUs of several servers, some of which may share one."""
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
    """Yield (metric, GPU, value) of the samples of some metrics whose value is a number of at least 0."""
    wanted = frozenset(metrics)
    for sample in samples:
        if sample.metric in wanted and 0 <= sample.value < math.inf and (gpu := sample.label(*_ID)) is not None:
            yield sample.metric, gpu, sample.value
