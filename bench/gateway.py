"""The latency that the gateway adds to a direct call of an ensemble, by size of body, compared with Envoy, in one run."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from urllib.parse import urlsplit

from tidegate.cli.stacks import read_fleet

from bench.envoy import ROUTING_HEADER, envoy
from bench.load import Peer, infer_request, latencies_ms, throughput_per_s
from bench.stack import stack

ROUNDS = 9
SECONDS = 2.0
CONNECTIONS = (8, 64)
VALUES = 256
SIZES = {"1 kB": (VALUES, 400), "100 kB": (25_600, 200), "1 MB": (262_144, 60)}
"""The FP32 values of each body, which are also the answer's, and the requests in a round of latencies."""

CONTEXT = {"member_id": "1138", "country": "US", "device": "tv"}
MEMBERS = 17
"""Members whose requests take turns. No two requests of a connection that follow each other are of one member: 17 is prime."""


def run() -> str:
    """Measure, and give the section of the report as Markdown."""
    with stack("bench/rules", "bench/models") as url:
        endpoint = read_fleet(url)["shards"][0]["endpoints"][0]["url"]
        with envoy(endpoint, "alpha") as envoy_port:
            return _report({size: _measured(_peers(url, endpoint, envoy_port, *SIZES[size])) for size in SIZES})


@dataclass(frozen=True, slots=True)
class Measured:
    """The medians of each round, by peer: latency in milliseconds, and answers per second by number of connections."""

    p50: dict[str, list[float]]
    rates: dict[int, dict[str, list[float]]]


def _measured(peers: tuple[list[Peer], int]) -> Measured:
    found, requests = peers
    for peer in found:
        latencies_ms(peer, requests // 2)
    measured = Measured(
        {peer.name: [] for peer in found}, {count: {peer.name: [] for peer in found} for count in CONNECTIONS}
    )
    for turn in range(ROUNDS):
        order = found[turn % 3 :] + found[: turn % 3]
        for peer in order:
            measured.p50[peer.name].append(statistics.median(latencies_ms(peer, requests)))
        for count, rates in measured.rates.items():
            for peer in order:
                rates[peer.name].append(throughput_per_s(peer, count, SECONDS))
    return measured


def _peers(gateway_url: str, endpoint_url: str, envoy_port: int, values: int, requests: int) -> tuple[list[Peer], int]:
    gateway, endpoint = urlsplit(gateway_url), urlsplit(endpoint_url)
    path = "/v2/models/echo/infer"
    plain = infer_request(path, {}, values)
    by_header = infer_request(path, {ROUTING_HEADER: "alpha"}, values)
    contexts = [CONTEXT | {"member_id": str(1138 + number)} for number in range(MEMBERS)]
    by_context = [infer_request(path, {"Tidegate-Context": json.dumps(each)}, values) for each in contexts]
    return [
        Peer("direct", endpoint.hostname or "", endpoint.port or 80, plain),
        Peer("envoy", "127.0.0.1", envoy_port, by_header),
        Peer("tidegate", gateway.hostname or "", gateway.port or 80, by_context[0], tuple(by_context[1:])),
    ], requests


def _report(by_size: dict[str, Measured]) -> str:
    lines = [
        "## In the path",
        "",
        "One request with a tensor (FP32, binary), which is also the answer, to an ensemble of one Python step on the real Triton.",
        "Envoy 1.40 routes by a header that says the shard; the gateway reads the context, decides, and picks the shard",
        f"itself, for one of {MEMBERS} members in turn. Client, proxies and Triton share this machine. Medians of {ROUNDS} interleaved rounds.",
        "",
        "| size | | direct | Envoy | Tidegate | Tidegate / Envoy |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for size, measured in by_size.items():
        p50 = measured.p50
        direct, by_envoy, ours = (statistics.median(p50[name]) for name in ("direct", "envoy", "tidegate"))
        added = [
            statistics.median(mine - bare for mine, bare in zip(p50[name], p50["direct"], strict=True))
            for name in ("envoy", "tidegate")
        ]
        lines += [
            f"| {size} | p50 at 1 connection, ms | {direct:.3f} | {by_envoy:.3f} | {ours:.3f} | {ours / by_envoy:.2f} |",
            f"| | added to direct, ms | | {added[0]:.3f} | {added[1]:.3f} | {added[1] / added[0]:.2f} |",
        ]
        for count, rate in measured.rates.items():
            rates = {name: statistics.median(values) for name, values in rate.items()}
            lines.append(
                f"| | answers/s at {count} connections | {rates['direct']:,.0f} | {rates['envoy']:,.0f} "
                f"| {rates['tidegate']:,.0f} | {rates['tidegate'] / rates['envoy']:.2f} |"
            )
    return "\n".join([*lines, ""])
