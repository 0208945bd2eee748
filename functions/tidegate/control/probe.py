"""How busy the servers of each shard are: what autoscaling goes by.

The measure is the time that inferences waited over the time that they computed, from two readings of Triton's counters
some seconds apart (https://github.com/triton-inference-server/server/blob/main/docs/user_guide/metrics.md). It is 0 where
nothing waits and 1 where an inference waits as long as it computes, whatever the model; a GPU's utilisation says neither.
"""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field

from tidegate.control.gpus import GpuLoad, gpu_load, together
from tidegate.control.prometheus import Sample, parse_samples
from tidegate.errors import EndpointError
from tidegate.ports import Endpoint, EndpointState, HttpRequest, RegisteredEndpoint, Registry, Transport

QUEUED = "nv_inference_queue_duration_us"
COMPUTED = "nv_inference_compute_infer_duration_us"
SCRAPE_TIMEOUT_S = 3.0

Counters = Mapping[tuple[str, str], float]
"""A counter's value by (its name, the model), summed over versions and instances."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """What one server said: its counters, and its GPUs."""

    counters: Counters
    gpus: GpuLoad


@dataclass(frozen=True, slots=True)
class ModelQueue:
    """How busy one model was on a shard: times of all its servers together, in microseconds."""

    model: str
    queued_us: float
    computed_us: float

    @property
    def ratio(self) -> float:
        """Time waited over time computed; 0 where nothing was computed."""
        return self.queued_us / self.computed_us if self.computed_us else 0.0


@dataclass(frozen=True, slots=True)
class ShardHealth:
    """What a probe found of one shard.

    `ready` of the `registered` endpoints took requests, and `unreachable` did not answer, or not with metrics. `models` has those that computed
    between the readings, by name.
    """

    shard: str
    registered: int
    ready: int
    unreachable: int
    models: tuple[ModelQueue, ...]
    gpus: GpuLoad = field(default_factory=GpuLoad)

    @property
    def queue_ratio(self) -> float:
        """Time waited over time computed, over all models; 0 where nothing was computed."""
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
    """Look at every registered endpoint.

    Args:
        registry: knows the endpoints.
        transport: reaches them.
        interval_s: time between the two readings, in seconds.
        shards: shards to tell of even where none of their endpoints is registered.
        sleep: waits.
        gpu_metrics_port: where the DCGM exporter beside each server answers; None: there is none.

    Returns:
        The health of each shard, sorted by its name.

    Raises:
        StoreError: the registry did not answer.
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
    """What one server says; None where it does not answer, or with something else, empty where it has no metrics."""
    endpoint = entry.endpoint
    try:
        if entry.metrics_port is None:
            answer = await transport.send(endpoint, HttpRequest("GET", "/v2/health/ready"), SCRAPE_TIMEOUT_S)
            return _Reading({}, GpuLoad()) if answer.status == 200 else None
        door = Endpoint(endpoint.shard, endpoint.host, entry.metrics_port)
        answer = await transport.send(door, HttpRequest("GET", "/metrics"), SCRAPE_TIMEOUT_S)
        if answer.status != 200:
            return None
        samples = parse_samples(answer.body.decode())
        exported = None if gpu_metrics_port is None else await _exported(transport, endpoint, gpu_metrics_port)
        return _Reading(counters(samples), gpu_load(samples, exported))
    except (EndpointError, ValueError):
        return None


async def _exported(transport: Transport, endpoint: Endpoint, port: int) -> list[Sample] | None:
    """What the exporter beside a server says; None where it says nothing, or nothing that is metrics: a server without one
    still takes requests."""
    beside = Endpoint(endpoint.shard, endpoint.host, port)
    try:
        answer = await transport.send(beside, HttpRequest("GET", "/metrics"), SCRAPE_TIMEOUT_S)
        return parse_samples(answer.body.decode()) if answer.status == 200 else None
    except (EndpointError, ValueError):
        return None


def counters(samples: Iterable[Sample]) -> Counters:
    """The per-model counters among Triton's metrics.

    Raises:
        ValueError: a counter has no model, or no finite value of at least 0.
    """
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
