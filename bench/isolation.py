"""The effect of other clients on a well-behaved one: 64 connections that never pause, large JSON, overload; also through Envoy."""

from __future__ import annotations

import json
import shutil
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tidegate.cli.stacks import read_fleet

from bench.envoy import ROUTING_HEADER, envoy
from bench.load import Crowd, Peer, crowd, infer_request
from bench.stack import model_config, stack
from tests.support.quiet_client import QuietReport, quiet_client

ROUNDS = 5
QUIET_S = 8.0
QUIET_PER_S = 20
QUIET_CONNECTIONS = 4
"""A connection is free again for its next request as long as answers come within 200 ms."""

NOISY = 64
MANY = 500
MANY_S = 8.0
VALUES = 256
JSON_VALUES = 300_000
"""About 1.5 MB as JSON."""

JSON_CALLERS = 2
SLOW_MS = 100
CAPACITY_S = 5.0
OVERLOAD_S = 8.0
OVERLOAD_TIMES = 5
OVERLOAD_CONNECTIONS = 200
GOOD_MS = 3 * SLOW_MS
CONTEXT = {"member_id": "1138", "country": "US", "device": "tv"}
HERE = Path("bench")


@dataclass(frozen=True, slots=True)
class Seen:
    """The answers to the quiet client in one round: their milliseconds, and the number with another status than 200."""

    p50_ms: float
    p99_ms: float
    failed: int

    @classmethod
    def of(cls, report: QuietReport) -> Seen:
        """The figures of a report."""
        failed = sum(count for outcome, count in report.outcomes().items() if not outcome.startswith("200"))
        return cls(report.percentile_ms(50), report.percentile_ms(99), failed)


@dataclass(frozen=True, slots=True)
class Overload:
    """Of the overloaded model: good answers per second while the load lasted, what else was answered, and how long after the
    load's end an answer was first as quick as without it."""

    good_per_s: float
    others: int
    recovered_after_s: float


def run() -> str:
    """Measure, and give the section of the report as Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        rules, models = _write(Path(folder))
        with stack(str(rules), str(models)) as url, envoy(_endpoint(url), "alpha") as envoy_port:
            port = urlsplit(url).port or 80
            seen = _rounds(port, envoy_port)
            many = crowd(_peers(port, envoy_port)["tidegate"], MANY, MANY_S)
            capacity_per_s = _capacity_per_s(port)
            overloads = [_overload(port, capacity_per_s) for _ in range(ROUNDS)]
    return _report(seen, many, capacity_per_s, overloads)


def _write(folder: Path) -> tuple[Path, Path]:
    """The rules and models of the other benchmarks, and a model that takes `SLOW_MS`."""
    rules = Path(shutil.copytree(HERE / "rules", folder / "rules"))
    models = Path(shutil.copytree(HERE / "models", folder / "models"))
    fleet = rules / "fleet.yaml"
    fleet.write_text(fleet.read_text() + "  slow: {shards: [alpha]}\n")
    objective = (rules / "objectives" / "echo.yaml").read_text().partition("rules:")[0]
    (rules / "objectives" / "slow.yaml").write_text(
        objective.replace("objective: echo", "objective: slow") + "rules: [{id: default, serve: slow}]\n"
    )
    (models / "slow" / "1").mkdir(parents=True)
    (models / "slow" / "config.pbtxt").write_text(model_config("slow"))
    code = (models / "echo_step" / "1" / "model.py").read_text()
    code = code.replace("import triton_python", "import time\n\nimport triton_python")
    code = code.replace("        return [", f"        time.sleep({SLOW_MS / 1e3} * len(requests))\n        return [")
    (models / "slow" / "1" / "model.py").write_text(code)
    return rules, models


def _endpoint(url: str) -> str:
    found: str = read_fleet(url)["shards"][0]["endpoints"][0]["url"]
    return found


def _peers(port: int, envoy_port: int) -> dict[str, Peer]:
    context = {"Tidegate-Context": json.dumps(CONTEXT)}
    path = "/v2/models/echo/infer"
    return {
        "tidegate": Peer("tidegate", "127.0.0.1", port, infer_request(path, context, VALUES)),
        "envoy": Peer("envoy", "127.0.0.1", envoy_port, infer_request(path, {ROUTING_HEADER: "alpha"}, VALUES)),
        "json": Peer("json", "127.0.0.1", port, _json_request()),
        "slow": Peer("slow", "127.0.0.1", port, infer_request("/v2/models/slow/infer", context, VALUES)),
    }


def _json_request() -> bytes:
    values = [round(number * 0.001, 3) for number in range(JSON_VALUES)]
    body = json.dumps({"context": CONTEXT, "inputs": {"INPUT": values}}, separators=(",", ":")).encode()
    head = "POST /v1/objectives/echo/infer HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _rounds(port: int, envoy_port: int) -> dict[str, list[Seen]]:
    """The quiet client's figures in each round, alone and beside each kind of noise, in turn."""
    peers = _peers(port, envoy_port)
    kinds: dict[str, tuple[Peer, Peer | None, int]] = {
        "tidegate alone": (peers["tidegate"], None, 0),
        "envoy alone": (peers["envoy"], None, 0),
        "tidegate noisy": (peers["tidegate"], peers["tidegate"], NOISY),
        "envoy noisy": (peers["envoy"], peers["envoy"], NOISY),
        "tidegate json": (peers["tidegate"], peers["json"], JSON_CALLERS),
        "envoy json": (peers["envoy"], peers["json"], JSON_CALLERS),
    }
    seen: dict[str, list[Seen]] = {kind: [] for kind in kinds}
    for turn in range(ROUNDS):
        names = list(kinds)
        for kind in names[turn % len(names) :] + names[: turn % len(names)]:
            quiet, noisy, connections = kinds[kind]
            seen[kind].append(_seen(quiet, noisy, connections))
    return seen


def _seen(quiet: Peer, noisy: Peer | None, connections: int) -> Seen:
    heard = Crowd()

    def make_noise() -> None:
        if noisy is not None:
            heard.statuses.update(crowd(noisy, connections, QUIET_S + 1).statuses)

    noise = threading.Thread(target=make_noise)
    with quiet_client(quiet.port, quiet.request, per_s=QUIET_PER_S, connections=QUIET_CONNECTIONS) as client:
        noise.start()
        time.sleep(QUIET_S)
        report = client.stop()
    noise.join()
    if noisy is not None and set(heard.statuses) != {200}:
        raise RuntimeError(f"the noise was no good requests: {dict(heard.statuses)}")
    return Seen.of(report)


def _capacity_per_s(port: int) -> float:
    """Good answers per second of the slow model to two callers, of which one always waits."""
    seen = crowd(_peers(port, port)["slow"], 2, CAPACITY_S)
    return seen.statuses[200] / CAPACITY_S


def _overload(port: int, capacity_per_s: float) -> Overload:
    """Ask for `OVERLOAD_TIMES` what the model can do, then wait until it is itself again."""
    slow = _peers(port, port)["slow"]
    per_s = OVERLOAD_TIMES * capacity_per_s
    with quiet_client(port, slow.request, per_s=per_s, connections=OVERLOAD_CONNECTIONS, timeout_s=60) as client:
        began = time.monotonic()
        time.sleep(OVERLOAD_S)
        stopped: list[QuietReport] = []
        stopping = threading.Thread(target=lambda: stopped.append(client.stop()))
        stopping.start()
        ended = time.monotonic()
        recovered_after_s = _until_good(slow) - ended
        stopping.join()
    answered = [(each.due_s + each.took_ms / 1e3, each.outcome) for each in stopped[0].answered]
    good = sum(outcome.startswith("200") and began <= at <= ended for at, outcome in answered)
    others = sum(not outcome.startswith("200") for _, outcome in answered)
    return Overload(good / (ended - began), others, recovered_after_s)


def _until_good(peer: Peer) -> float:
    """When a caller was first answered as quickly as without load."""
    while True:
        began = time.monotonic()
        with socket.create_connection((peer.host, peer.port), timeout=90) as connection:
            connection.sendall(peer.request)
            status = connection.recv(65536)[9:12]
        now = time.monotonic()
        if status == b"200" and now - began < GOOD_MS / 1e3:
            return now
        time.sleep(0.02)


def _median(rounds: list[Seen], value: Callable[[Seen], float]) -> float:
    return statistics.median(map(value, rounds))


def _report(seen: dict[str, list[Seen]], many: Crowd, capacity_per_s: float, overloads: list[Overload]) -> str:
    p50 = {kind: _median(rounds, lambda each: each.p50_ms) for kind, rounds in seen.items()}
    p99 = {kind: _median(rounds, lambda each: each.p99_ms) for kind, rounds in seen.items()}
    failed = {kind: sum(each.failed for each in rounds) for kind, rounds in seen.items()}
    good = statistics.median(each.good_per_s for each in overloads)
    recovered = statistics.median(each.recovered_after_s for each in overloads)
    others = sum(each.others for each in overloads)
    false = {status: count for status, count in many.statuses.items() if status != 200}
    took = statistics.quantiles(many.took_ms, n=100)

    def row(words: str, kind: str, other: str, other_words: str) -> str:
        return f"| {words} | {p50[kind]:.1f} | {p99[kind]:.1f} | {failed[kind]} | {p99[kind] / p99[other]:.2f} × {other_words} |"

    return "\n".join(
        [
            "## Beside others",
            "",
            f"A quiet client sends {QUIET_PER_S} requests of 1 kB per second to an ensemble of one Python step, over {QUIET_CONNECTIONS} kept",
            f"connections. A noisy one repeats the same request over {NOISY} connections without a pause, through the same way. Client,",
            f"proxies and Triton share this machine. Medians of {ROUNDS} interleaved rounds of {QUIET_S:.0f} s.",
            "",
            "| the quiet client | p50, ms | p99, ms | failed | p99 |",
            "|---|---:|---:|---:|---|",
            row("through Envoy, alone", "envoy alone", "envoy alone", "itself"),
            row("through Tidegate, alone", "tidegate alone", "envoy alone", "Envoy's"),
            row(f"through Envoy, beside {NOISY} connections", "envoy noisy", "envoy noisy", "itself"),
            row(f"through Tidegate, beside {NOISY} connections", "tidegate noisy", "envoy noisy", "Envoy's"),
            row(f"through Envoy, beside {JSON_CALLERS} callers of `/v1`", "envoy json", "envoy json", "itself"),
            row(f"through Tidegate, beside {JSON_CALLERS} callers of `/v1`", "tidegate json", "envoy json", "Envoy's"),
            "",
            "Callers of `/v1` send 1.5 MB of JSON each time, through Tidegate in both rows: what they take of this machine's cores,",
            f"Envoy's client feels too. Beside its own figure alone, Tidegate's p99 is {p99['tidegate json'] / p99['tidegate alone']:.1f} times as long.",
            "",
            f"{MANY} connections without a pause, for {MANY_S:.0f} s: {many.statuses[200]:,} answers with 200,",
            f"{sum(false.values())} others, p50 {took[49]:.0f} ms, p99 {took[98]:.0f} ms.",
            "",
            f"A model with one instance that takes {SLOW_MS} ms, asked for {OVERLOAD_TIMES} times what it can answer, for",
            f"{OVERLOAD_S:.0f} s; medians of {ROUNDS}:",
            "",
            "| | |",
            "|---|---:|",
            f"| good answers per second without overload | {capacity_per_s:.1f} |",
            f"| good answers per second under overload | {good:.1f} ({good / capacity_per_s:.2f} of it) |",
            f"| refused or given up, of all rounds | {others} |",
            f"| from the end of the load to an answer within {GOOD_MS} ms, s | {recovered:.2f} |",
            "",
        ]
    )
