"""The probe's function: measures the load of each shard's servers on a schedule, for autoscaling."""

from __future__ import annotations

import functools
from typing import Any

from tidegate.aws.event_function import EventFunction
from tidegate.aws.event_kinds import require_schedule
from tidegate.bootstrap import build_transport
from tidegate.bootstrap.control import registry_of
from tidegate.fleet.probe import ShardHealth, probe
from tidegate.metrics import Dimension, Metric
from tidegate.ports import Registry, Transport
from tidegate.settings import Settings

MOST_MODELS = 50
"""Models per shard that are reported by name, the busiest first, since each metric has a price."""


@functools.cache
def _wired() -> tuple[EventFunction, Registry, Transport, Settings]:
    settings = Settings.from_environment()
    function = EventFunction("probe", settings.log_level)
    return function, registry_of(settings), build_transport(settings), settings


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Probe every registered server. Raises `EventError`: the event is not a tick of a schedule."""
    function, registry, transport, settings = _wired()
    function.begin(context)
    require_schedule(event)
    found = function.run(
        lambda: probe(registry, transport, settings.probe_interval_s, gpu_metrics_port=settings.gpu_metrics_port)
    )
    for shard in found:
        _report(function, shard)
    return {"shards": {shard.shard: _as_dict(shard) for shard in found}}


def _report(function: EventFunction, shard: ShardHealth) -> None:
    gpus = shard.gpus
    values: dict[Metric, float] = {
        Metric.QUEUE_TIME_RATIO: shard.queue_ratio,
        Metric.READY_ENDPOINTS: shard.ready,
        Metric.UNREACHABLE_ENDPOINTS: shard.unreachable,
    }
    if gpus.utilisation:
        values[Metric.GPU_UTILISATION] = 100 * sum(gpus.utilisation.values()) / len(gpus.utilisation)
    if gpus.memory:
        values[Metric.GPU_MEMORY_USED] = 100 * max(gpus.memory.values())
    if gpus.faults is not None:
        values[Metric.GPU_FAULTS] = len(gpus.faults)
    function.emit(values, {Dimension.SHARD: shard.shard})
    for model in sorted(shard.models, key=lambda each: -each.computed_us)[:MOST_MODELS]:
        function.emit(
            {Metric.QUEUE_TIME_RATIO: model.ratio}, {Dimension.SHARD: shard.shard, Dimension.MODEL: model.model}
        )
    if gpus.faults:
        function.logger.error("GPUs are broken", extra={"shard": shard.shard, "gpus": sorted(gpus.faults)})
    if shard.unreachable:
        function.logger.warning("servers do not answer", extra={"shard": shard.shard, "count": shard.unreachable})


def _as_dict(shard: ShardHealth) -> dict[str, Any]:
    return {
        "registered": shard.registered,
        "ready": shard.ready,
        "unreachable": shard.unreachable,
        "queue_time_ratio": shard.queue_ratio,
        "gpus": {
            "utilisation": shard.gpus.utilisation,
            "memory": shard.gpus.memory,
            "faults": None if shard.gpus.faults is None else sorted(shard.gpus.faults),
        },
        "models": {model.model: model.ratio for model in shard.models},
    }
