"""What the gateway adds to a unary inference over gRPC, beside Envoy, in one run."""

from __future__ import annotations

import asyncio
import json
import statistics
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import grpc
from tidegate.aws.clients import AwsClients, AwsConfig
from tidegate.aws.registry import DynamoRegistry
from tidegate.cli.stacks import read_fleet
from tidegate.settings import Settings
from tritonclient.grpc import service_pb2

from bench.envoy import ROUTING_HEADER, envoy
from bench.gateway import CONTEXT, VALUES
from bench.rpc_proxy import METHOD, bare_proxy
from bench.stack import stack

ROUNDS = 9
REQUESTS = 400
SECONDS = 2.0
CONCURRENT = 8


class Peer(NamedTuple):
    """Where to send a request, and its metadata."""

    name: str
    address: str
    metadata: tuple[tuple[str, str], ...] = ()


def run() -> str:
    """Measure, and give the section of the report as Markdown."""
    with stack("bench/rules", "bench/models", "--grpc-port", "0") as url:
        fleet = read_fleet(url)
        triton = asyncio.run(_triton(fleet["control"]))
        with (
            envoy(f"http://{triton}", "alpha", over_http2=True) as envoy_port,
            bare_proxy("aio", triton) as aio,
            bare_proxy("sync", triton) as sync,
            bare_proxy("shaped", triton) as shaped,
        ):
            peers = [
                Peer("direct", triton),
                Peer("envoy", f"127.0.0.1:{envoy_port}", ((ROUTING_HEADER, "alpha"),)),
                Peer("aio", aio),
                Peer("sync", sync),
                Peer("shaped", shaped),
                Peer("tidegate", fleet["gateway"]["grpc"], (("tidegate-context", json.dumps(CONTEXT)),)),
            ]
            p50: dict[str, list[float]] = {peer.name: [] for peer in peers}
            rate: dict[str, list[float]] = {peer.name: [] for peer in peers}
            for peer in peers:
                _latencies_ms(peer, REQUESTS)
            for turn in range(ROUNDS):
                order = peers[turn % len(peers) :] + peers[: turn % len(peers)]
                for peer in order:
                    p50[peer.name].append(statistics.median(_latencies_ms(peer, REQUESTS)))
                for peer in order:
                    rate[peer.name].append(_throughput_per_s(peer))
    return _report(p50, rate)


async def _triton(control: dict[str, Any]) -> str:
    """The gRPC address of the stack's one Triton server, as it is registered."""
    settings = Settings(aws_endpoint_url=control["endpoint_url"], aws_region=control["region"])
    registry = DynamoRegistry(AwsClients(AwsConfig.from_settings(settings)), control["registry_table"])
    (entry,) = await registry.endpoints()
    return f"{entry.endpoint.host}:{entry.grpc_port}"


def _message() -> bytes:
    request = service_pb2.ModelInferRequest(model_name="echo")
    request.inputs.add(name="INPUT", datatype="FP32", shape=[VALUES])
    request.raw_input_contents.append(struct.pack(f"<{VALUES}f", *range(VALUES)))
    message: bytes = request.SerializeToString()
    return message


def _latencies_ms(peer: Peer, requests: int) -> list[float]:
    message = _message()
    with grpc.insecure_channel(peer.address) as channel:
        ask = channel.unary_unary(METHOD)
        ask(message, metadata=peer.metadata, timeout=10)
        taken = []
        for _ in range(requests):
            start = time.perf_counter()
            ask(message, metadata=peer.metadata, timeout=10)
            taken.append((time.perf_counter() - start) * 1e3)
    return taken


def _throughput_per_s(peer: Peer) -> float:
    """Answers per second to `CONCURRENT` threads. The client is Python too, and limits it."""
    message, end = _message(), time.perf_counter() + SECONDS

    def ask(_number: int) -> int:
        answered = 0
        with grpc.insecure_channel(peer.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            method = channel.unary_unary(METHOD)
            while time.perf_counter() < end:
                method(message, metadata=peer.metadata, timeout=10)
                answered += 1
        return answered

    with ThreadPoolExecutor(CONCURRENT) as threads:
        return sum(threads.map(ask, range(CONCURRENT))) / SECONDS


def _report(p50: dict[str, list[float]], rate: dict[str, list[float]]) -> str:
    named = {
        "direct": "direct",
        "envoy": "Envoy",
        "tidegate": "Tidegate",
        "aio": "bare proxy, `grpc.aio`",
        "sync": "bare proxy, threads",
        "shaped": "bare proxy, answering as the gateway does",
    }
    added = {
        name: statistics.median(mine - bare for mine, bare in zip(p50[name], p50["direct"], strict=True))
        for name in named
    }
    rates = {name: statistics.median(values) for name, values in rate.items()}
    lines = [
        "## Over gRPC",
        "",
        f"The same request as in the path, as a unary RPC with raw contents (FP32, {VALUES} values). Envoy 1.40 speaks HTTP/2 on",
        "both sides. The bare proxies pass bytes on over grpcio and do nothing else, so they bound what a gateway over grpcio can",
        "reach. The last one also limits how long a caller takes to send, and sends metadata before the answer, as the gateway",
        f"does. The client is grpcio without decoding; at {CONCURRENT} connections it limits the rate. Client, proxies and Triton",
        f"share this machine. Medians of {ROUNDS} interleaved rounds.",
        "",
        f"| | p50 at 1 connection, ms | added to direct, ms | added / Envoy's | answers/s at {CONCURRENT} connections |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, shown in named.items():
        more = "" if name == "direct" else f"{added[name]:.3f}"
        ratio = f"{added[name] / added['envoy']:.2f}" if name not in ("direct", "envoy") else ""
        lines.append(f"| {shown} | {statistics.median(p50[name]):.3f} | {more} | {ratio} | {rates[name]:,.0f} |")
    bare_us, shaped_us, ours_us = (added[name] * 1e3 for name in ("aio", "shaped", "tidegate"))
    lines += [
        "",
        f"So of the {ours_us:.0f} µs that the gateway adds, {bare_us:.0f} are those of any proxy on `grpc.aio`, {shaped_us - bare_us:.0f} are for",
        f"time limits and metadata, and {ours_us - shaped_us:.0f} for deciding, choosing a server, and counting.",
    ]
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    print(run())
