"""The probe's function: on a schedule, how busy each shard's servers are, as the metrics that autoscaling goes by."""

from __future__ import annotations

import functools
from typing import Any

from tidegate.aws.event_function import EventFunction
from tidegate.aws.event_kinds import require_schedule
from tidegate.bootstrap import build_transport
from tidegate.bootstrap.control import registry_of
from tidegate.control.probe import ShardHealth, probe
from tidegate.ports import Registry, Transport
from tidegate.settings import Settings

MOST_MODELS = 50
"""Models per shard that are reported by name, the busiest first; each is a metric that is paid for."""


@functools.cache
def _wired() -> tuple[EventFunction, Registry, Transport, Settings]:
    settings = Settings.from_environment()
    function = EventFunction("probe", settings.log_level or "INFO")
    return function, registry_of(settings), build_transport(settings), settings


def handler(event: Any, context: Any) -> dict[str, Any]:
    """Probe every registered server.

    Raises:
        EventError: the event is not a tick of a schedule.
        StoreError: the registry did not answer.
    """
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
    metrics = function.metrics(Shard=shard.shard)
    metrics.add_metric("QueueTimeRatio", "None", shard.queue_ratio)
    metrics.add_metric("ReadyEndpoints", "Count", shard.ready)
    metrics.add_metric("UnreachableEndpoints", "Count", shard.unreachable)
    gpus = shard.gpus
    if gpus.utilisation:
        metrics.add_metric("GpuUtilisation", "Percent", 100 * sum(gpus.utilisation.values()) / len(gpus.utilisation))
    if gpus.memory:
        metrics.add_metric("GpuMemoryUsed", "Percent", 100 * max(gpus.memory.values()))
    if gpus.faults is not None:
        metrics.add_metric("GpuFaults", "Count", len(gpus.faults))
    metrics.flush_metrics()
    for model in sorted(shard.models, key=lambda each: -each.computed_us)[:MOST_MODELS]:
        by_model = function.metrics(Shard=shard.shard, Model=model.model)
        by_model.add_metric("QueueTimeRatio", "None", model.ratio)
        by_model.flush_metrics()
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
