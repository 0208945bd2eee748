"""What the gateway adds to an ensemble called directly, beside Envoy, in one run."""

from __future__ import annotations

import json
import statistics
from urllib.parse import urlsplit

from tidegate.cli.control import read_fleet

from bench.envoy import ROUTING_HEADER, envoy
from bench.load import Peer, infer_request, latencies_ms, throughput_per_s
from bench.stack import stack

ROUNDS = 9
REQUESTS = 400
SECONDS = 2.0
CONNECTIONS = 8
VALUES = 256
CONTEXT = {"member_id": "1138", "country": "US", "device": "tv"}


def run() -> str:
    """Measure, and give the section of the report as Markdown."""
    with stack("bench/rules", "bench/models") as url:
        endpoint = read_fleet(url)["shards"][0]["endpoints"][0]["url"]
        with envoy(endpoint, "alpha") as envoy_port:
            peers = _peers(url, endpoint, envoy_port)
            for peer in peers:
                latencies_ms(peer, 200)
            p50: dict[str, list[float]] = {peer.name: [] for peer in peers}
            rate: dict[str, list[float]] = {peer.name: [] for peer in peers}
            for turn in range(ROUNDS):
                order = peers[turn % 3 :] + peers[: turn % 3]
                for peer in order:
                    p50[peer.name].append(statistics.median(latencies_ms(peer, REQUESTS)))
                for peer in order:
                    rate[peer.name].append(throughput_per_s(peer, CONNECTIONS, SECONDS))
    return _report(p50, rate)


def _peers(gateway_url: str, endpoint_url: str, envoy_port: int) -> list[Peer]:
    gateway, endpoint = urlsplit(gateway_url), urlsplit(endpoint_url)
    path = "/v2/models/echo/infer"
    plain = infer_request(path, {}, VALUES)
    by_header = infer_request(path, {ROUTING_HEADER: "alpha"}, VALUES)
    by_context = infer_request(path, {"Tidegate-Context": json.dumps(CONTEXT)}, VALUES)
    return [
        Peer("direct", endpoint.hostname or "", endpoint.port or 80, plain),
        Peer("envoy", "127.0.0.1", envoy_port, by_header),
        Peer("tidegate", gateway.hostname or "", gateway.port or 80, by_context),
    ]


def _report(p50: dict[str, list[float]], rate: dict[str, list[float]]) -> str:
    direct, by_envoy, ours = (statistics.median(p50[name]) for name in ("direct", "envoy", "tidegate"))
    added = [
        statistics.median(mine - bare for mine, bare in zip(p50[name], p50["direct"], strict=True))
        for name in ("envoy", "tidegate")
    ]
    rates = {name: statistics.median(values) for name, values in rate.items()}
    lines = [
        "## In the path",
        "",
        f"One request of 1 kB (FP32, {VALUES} values, binary) to an ensemble of one Python step on the real Triton.",
        "Envoy 1.40 routes by a header that says the shard; the gateway reads the context, decides, and picks the shard",
        f"itself. Client, proxies and Triton share this machine. Medians of {ROUNDS} interleaved rounds.",
        "",
        "| | direct | Envoy | Tidegate | Tidegate / Envoy |",
        "|---|---:|---:|---:|---:|",
        f"| p50 at 1 connection, ms | {direct:.3f} | {by_envoy:.3f} | {ours:.3f} | {ours / by_envoy:.2f} |",
        f"| added to direct, ms | | {added[0]:.3f} | {added[1]:.3f} | {added[1] / added[0]:.2f} |",
        f"| answers/s at {CONNECTIONS} connections | {rates['direct']:,.0f} | {rates['envoy']:,.0f} "
        f"| {rates['tidegate']:,.0f} | {rates['tidegate'] / rates['envoy']:.2f} |",
        "",
    ]
    return "\n".join(lines)
