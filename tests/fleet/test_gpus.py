"""A probe tells how busy and full GPUs are by Triton's own figures, and which are broken by the DCGM exporter's."""

from __future__ import annotations

import asyncio

import pytest
from tidegate.errors import EndpointRefusedError
from tidegate.fleet.metrics import GpuLoad, gpu_load, parse_samples, together
from tidegate.fleet.probe import ShardHealth, probe
from tidegate.ports import Endpoint, EndpointState, HttpRequest, HttpResponse, RegisteredEndpoint
from tidegate.testing import MemoryRegistry, MemoryTransport

TRITON = """# HELP nv_gpu_utilization GPU utilization rate [0.0 - 1.0)
# TYPE nv_gpu_utilization gauge
nv_gpu_utilization{gpu_uuid="GPU-1"} 0.75
nv_gpu_utilization{gpu_uuid="GPU-2"} 0.25
nv_gpu_memory_total_bytes{gpu_uuid="GPU-1"} 16000000000.000000
nv_gpu_memory_total_bytes{gpu_uuid="GPU-2"} 16000000000
nv_gpu_memory_total_bytes{gpu_uuid="GPU-3"} 0
nv_gpu_memory_used_bytes{gpu_uuid="GPU-1"} 12000000000
nv_gpu_memory_used_bytes{gpu_uuid="GPU-2"} 4000000000
nv_gpu_memory_used_bytes{gpu_uuid="GPU-3"} 5
nv_gpu_power_usage{gpu_uuid="GPU-1"} 33.2
nv_inference_count{model="m",version="1"} 3
"""


def exported(*xids: int, ecc: int = 0) -> str:
    lines = [
        f'DCGM_FI_DEV_XID_ERRORS{{gpu="{number}",UUID="GPU-{number + 1}",modelName="NVIDIA A10G",err_code="{xid}"}} {xid}'
        for number, xid in enumerate(xids)
    ]
    ecc_line = f'DCGM_FI_DEV_ECC_DBE_VOL_TOTAL{{gpu="0",UUID="GPU-1"}} {ecc}'
    return "\n".join(["# TYPE DCGM_FI_DEV_XID_ERRORS gauge", *lines, ecc_line, ""])


def test_use_and_memory_are_tritons() -> None:
    load = gpu_load(parse_samples(TRITON), None)
    assert load.utilisation == {"GPU-1": 0.75, "GPU-2": 0.25}
    assert load.memory == {"GPU-1": 0.75, "GPU-2": 0.25}
    assert load.faults is None, "nobody says"


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        (exported(0, 0), set()),
        (exported(13, 31), set()),
        (exported(79, 0), {"GPU-1"}),
        (exported(0, 48), {"GPU-2"}),
        (exported(0, 0, ecc=2), {"GPU-1"}),
        (r'DCGM_FI_DEV_XID_ERRORS{modelName="a,UUID=\"GPU-9\"",UUID="GPU-1"} 79', {"GPU-1"}),
        ('DCGM_FI_DEV_XID_ERRORS{UUID="GPU-1"} NaN', set()),
    ],
)
def test_a_gpu_is_broken_by_errors_that_no_program_makes(text: str, faults: set[str]) -> None:
    assert gpu_load([], parse_samples(text)).faults == faults


def test_servers_that_share_an_instance_count_its_gpus_once() -> None:
    one, other = gpu_load(parse_samples(TRITON), parse_samples(exported(79))), gpu_load(parse_samples(TRITON), None)
    assert together([one, other]) == GpuLoad({"GPU-1": 0.75, "GPU-2": 0.25}, one.memory, frozenset({"GPU-1"}))
    assert together([]) == GpuLoad()


def run(exporter: str | None) -> ShardHealth:
    async def answer(endpoint: Endpoint, request: HttpRequest) -> HttpResponse:
        assert request.path == "/metrics"
        if endpoint.port == 9400:
            if exporter is None:
                raise EndpointRefusedError("refused")
            return HttpResponse(200, (), exporter.encode())
        return HttpResponse(200, (), TRITON.encode())

    async def sleep(_seconds: float) -> None:
        return

    async def probed() -> ShardHealth:
        registry = MemoryRegistry(clock=lambda: 1000.0)
        endpoint = Endpoint("a", "10.0.0.1", 8000)
        await registry.register(RegisteredEndpoint(endpoint, EndpointState.READY, 1000.0, metrics_port=8002))
        (found,) = await probe(registry, MemoryTransport(answer), 1.0, (), sleep, 9400)
        return found

    return asyncio.run(probed())


def test_the_exporter_beside_a_server_is_asked() -> None:
    assert run(exported(79)).gpus.faults == {"GPU-1"}


@pytest.mark.parametrize("exporter", [None, "<html>"], ids=["down", "something else answers"])
def test_an_exporter_that_says_nothing_leaves_the_server_ready(exporter: str | None) -> None:
    found = run(exporter)
    assert (found.ready, found.unreachable, found.gpus.faults) == (1, 0, None)
    assert found.gpus.utilisation["GPU-1"] == 0.75
