"""A probe tells how long inferences waited over how long they computed, and which servers answer."""

from __future__ import annotations

import asyncio

from tidegate.errors import EndpointRefusedError
from tidegate.fleet.metrics import parse_samples
from tidegate.fleet.probe import counters, probe
from tidegate.ports import Endpoint, EndpointState, HttpRequest, HttpResponse, RegisteredEndpoint
from tidegate.testing import MemoryRegistry, MemoryTransport

A1, A2, B1 = (Endpoint(shard, "10.0.0.1", port) for shard, port in (("a", 8000), ("a", 8010), ("b", 8020)))


def exposition(queued_us: int, computed_us: int) -> str:
    """What Triton's metrics endpoint says of one model with two versions."""
    return (
        "# HELP nv_inference_queue_duration_us Cumulative inference queuing duration in microseconds\n"
        "# TYPE nv_inference_queue_duration_us counter\n"
        f'nv_inference_queue_duration_us{{model="ranker",version="1"}} {queued_us}\n'
        f'nv_inference_queue_duration_us{{model="ranker",version="2"}} {queued_us}\n'
        f'nv_inference_compute_infer_duration_us{{model="ranker",version="1"}} {computed_us}\n'
        f'nv_inference_compute_infer_duration_us{{model="ranker",version="2"}} {computed_us:.1e}\n'
        'nv_inference_compute_infer_duration_us{model="idle",version="1"} 77\n'
        "nv_cpu_utilization 0.25\n"
    )


class Fleet:
    """Servers whose counters are scripted: what each says at the first and at the second reading."""

    def __init__(self, readings: dict[int, list[str | None]]) -> None:
        self.readings = readings
        self.slept: list[float] = []

    async def answer(self, endpoint: Endpoint, request: HttpRequest) -> HttpResponse:
        assert (request.method, request.path) == ("GET", "/metrics")
        text = self.readings[endpoint.port][len(self.slept)]
        if text is None:
            raise EndpointRefusedError("refused")
        return HttpResponse(200, (), text.encode())

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def run(fleet: Fleet, *entries: RegisteredEndpoint) -> dict[str, tuple[int, int, int, float, list[str]]]:
    async def probed() -> dict[str, tuple[int, int, int, float, list[str]]]:
        registry = MemoryRegistry(clock=lambda: 1000.0)
        for entry in entries:
            await registry.register(entry)
        found = await probe(registry, MemoryTransport(fleet.answer), 5.0, ["a", "b", "c"], fleet.sleep)
        return {
            each.shard: (
                each.registered,
                each.ready,
                each.unreachable,
                each.queue_ratio,
                [model.model for model in each.models],
            )
            for each in found
        }

    return asyncio.run(probed())


def entry(endpoint: Endpoint, state: str = "ready") -> RegisteredEndpoint:
    return RegisteredEndpoint(endpoint, EndpointState(state), 1000.0, metrics_port=endpoint.port + 2)


def test_the_ratio_is_of_what_grew_on_all_servers_of_a_shard() -> None:
    fleet = Fleet(
        {
            8002: [exposition(1000, 2000), exposition(1500, 3000)],
            8012: [exposition(0, 0), exposition(1500, 1000)],
            8022: [None, None],
        }
    )
    found = run(fleet, entry(A1), entry(A2), entry(B1))
    assert found["a"] == (2, 2, 0, (500 + 1500) / (1000 + 1000), ["ranker"])
    assert found["b"] == (1, 0, 1, 0.0, []), "it does not answer"
    assert found["c"] == (0, 0, 0, 0.0, []), "none of its servers is registered"
    assert fleet.slept == [5.0]


def test_a_server_that_restarted_between_the_readings_counts_from_zero() -> None:
    fleet = Fleet({8002: [exposition(90_000, 90_000), exposition(300, 100)]})
    assert run(fleet, entry(A1, "loading"))["a"] == (1, 0, 0, 3.0, ["ranker"])


def test_versions_are_summed_and_other_metrics_left_alone() -> None:
    found = counters(parse_samples(exposition(5, 2000)))
    assert found["nv_inference_queue_duration_us", "ranker"] == 10
    assert found["nv_inference_compute_infer_duration_us", "ranker"] == 4000
    assert len(found) == 3
