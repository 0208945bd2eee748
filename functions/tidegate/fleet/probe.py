"""Measures how busy the servers of each shard are, for autoscaling.

The measure is the time that inferences waited over the time that they computed, from two readings of Triton's counters
some seconds apart (https://github.com/triton-inference-server/server/blob/main/docs/user_guide/metrics.md). It is 0 where
nothing waits and 1 where an inference waits as long as it computes, whatever the model; a GPU's utilisation shows neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from tidegate.errors import EndpointError
from tidegate.fleet.metrics import GpuLoad, Sample, gpu_load, parse_samples, together
from tidegate.oip.paths import SERVER_LIVE
from tidegate.ports import Endpoint, EndpointState, HttpRequest, RegisteredEndpoint, Registry, Transport

QUEUED = "nv_inference_queue_duration_us"
COMPUTED = "nv_inference_compute_infer_duration_us"
SCRAPE_TIMEOUT_S = 3.0

Counters = Mapping[tuple[str, str], float]
"""A counter's value by (its name, the model), summed over versions and instances."""


@dataclass(frozen=True, slots=True)
class _Reading:
    counters: Counters
    gpus: GpuLoad


@dataclass(frozen=True, slots=True)
class ModelQueue:
    """Time that inferences of one model waited and computed on all servers of a shard, in microseconds."""

    model: str
    queued_us: float
    computed_us: float

    @property
    def ratio(self) -> float:
        return self.queued_us / self.computed_us if self.computed_us else 0.0


@dataclass(frozen=True, slots=True)
class ShardHealth:
    """Result of a probe of one shard.

    `ready` of the `registered` endpoints took requests, and `unreachable` did not answer, or not with metrics. `models` has
    those that computed between the readings, by name.
    """

    shard: str
    registered: int
    ready: int
    unreachable: int
    models: tuple[ModelQueue, ...]
    gpus: GpuLoad = field(default_factory=GpuLoad)

    @property
    def queue_ratio(self) -> float:
        total = ModelQueue("", sum(m.queued_us for m in self.models), sum(m.computed_us for m in self.models))
        return total.ratio


async def probe(
    registry: Registry,
    transport: Transport,
    interval_s: float,
    shards: Iterable[str] = (),
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    gpu_metrics_port: int | None = None,
) -> tuple[ShardHealth, ...]:
    """Read the metrics of every registered endpoint, twice, `interval_s` apart. Return the health of each shard, by name.

    `shards` are reported even where none of their endpoints is registered. The DCGM exporter beside each server answers at
    `gpu_metrics_port`; None: there is none.
    """
    entries = list(await registry.endpoints())
    before = await _read_all(transport, entries, None)
    await sleep(interval_s)
    after = await _read_all(transport, entries, gpu_metrics_port)
    by_shard: dict[str, list[RegisteredEndpoint]] = {shard: [] for shard in shards}
    for entry in entries:
        by_shard.setdefault(entry.endpoint.shard, []).append(entry)
    return tuple(_health(shard, by_shard[shard], before, after) for shard in sorted(by_shard))


async def _read_all(
    transport: Transport, entries: Iterable[RegisteredEndpoint], gpu_metrics_port: int | None
) -> dict[Endpoint, _Reading | None]:
    listed = list(entries)
    read = await asyncio.gather(*(_read(transport, entry, gpu_metrics_port) for entry in listed))
    return {entry.endpoint: reading for entry, reading in zip(listed, read, strict=True)}


async def _read(transport: Transport, entry: RegisteredEndpoint, gpu_metrics_port: int | None) -> _Reading | None:
    """Read one server; None if it does not answer or its metrics are malformed, empty if it has none."""
    endpoint = entry.endpoint
    try:
        if entry.metrics_port is None:
            answer = await transport.send(endpoint, HttpRequest("GET", SERVER_LIVE), SCRAPE_TIMEOUT_S)
            return _Reading({}, GpuLoad()) if answer.status == 200 else None
        samples = await _scrape(transport, endpoint._replace(port=entry.metrics_port))
        # A server without an exporter beside it still takes requests.
        exported = None
        if gpu_metrics_port is not None:
            with contextlib.suppress(EndpointError, ValueError):
                exported = await _scrape(transport, endpoint._replace(port=gpu_metrics_port))
        return _Reading(counters(samples), gpu_load(samples, exported))
    except (EndpointError, ValueError):
        return None


async def _scrape(transport: Transport, metrics: Endpoint) -> list[Sample]:
    answer = await transport.send(metrics, HttpRequest("GET", "/metrics"), SCRAPE_TIMEOUT_S)
    if answer.status != 200:
        raise ValueError(f"status {answer.status}")
    return parse_samples(answer.body.decode())


def counters(samples: Iterable[Sample]) -> Counters:
    """Return the counters per model among Triton's metrics. Raises `ValueError`: one is malformed."""
    sums: dict[tuple[str, str], float] = defaultdict(float)
    for sample in samples:
        if sample.metric in (QUEUED, COMPUTED):
            model = sample.label("model")
            if model is None or not 0 <= sample.value < math.inf:
                raise ValueError(f"{sample.metric} has no model, or no finite value of at least 0")
            sums[sample.metric, model] += sample.value
    return sums


def _health(
    shard: str,
    entries: list[RegisteredEndpoint],
    before: Mapping[Endpoint, _Reading | None],
    after: Mapping[Endpoint, _Reading | None],
) -> ShardHealth:
    grown: dict[tuple[str, str], float] = defaultdict(float)
    unreachable = 0
    for entry in entries:
        first, last = before[entry.endpoint], after[entry.endpoint]
        if last is None:
            unreachable += 1
            continue
        for key, value in last.counters.items():
            # A server that restarted between the readings counts from 0 again.
            start = 0.0 if first is None else first.counters.get(key, 0.0)
            grown[key] += value - start if value >= start else value
    models = sorted({model for name, model in grown if name == COMPUTED and grown[name, model] > 0})
    queues = tuple(ModelQueue(model, grown[QUEUED, model], grown[COMPUTED, model]) for model in models)
    ready = sum(entry.state is EndpointState.READY and after[entry.endpoint] is not None for entry in entries)
    gpus = together(read.gpus for entry in entries if (read := after[entry.endpoint]) is not None)
    return ShardHealth(shard, len(entries), ready, unreachable, queues, gpus)
