"""What traces cost a request of the gateway, and its start: off, not sampled, and recorded."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from bench.rule_sets import bundle, rule_set
from tests.support.collector import collector

ROUNDS = 7
REQUESTS = 1_000
REPEATS = 5
RATIO = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"}
MODES: Mapping[str, Mapping[str, str]] = {
    "off": {},
    "not sampled": RATIO,
    "recorded": {"OTEL_TRACES_SAMPLER": "always_on"},
}

# The transport is in memory; a collector in another process takes the spans.
_LOOP = """
import asyncio, json, os, sys, time
from pathlib import Path
from tidegate.gateway import Dispatcher
from tidegate.ports import Endpoint, HttpResponse
from tidegate.rules import load_bundle
from tidegate.testing import MemoryEndpointDirectory, MemoryEngineSource, MemoryTransport
from tidegate.web import create_app

def memory_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

data, mode, requests, repeats = sys.argv[1:]
tracer, started_s, before_mb = None, time.process_time(), memory_mb()
if mode != "off":
    from tidegate.tracing.otlp import OtlpTracer
    tracer = OtlpTracer(os.environ, lambda text: None)
start_ms, start_mb = (time.process_time() - started_s) * 1e3, memory_mb() - before_mb
scope = {
    "type": "http", "method": "POST", "path": "/v2/models/bench/infer", "query_string": b"",
    "headers": [(b"content-type", b"application/json"), (b"tidegate-context", b'{"member_id": "1"}')],
}
answer = HttpResponse(200, [(b"content-type", b"application/json")], b"{}")

async def answered(endpoint, request):
    return answer

async def receive():
    return {"type": "http.request", "body": b"{}", "more_body": False}

async def send(message):
    pass

async def main():
    engine = load_bundle(Path(data).read_bytes())
    shards = {shard for target in engine.targets("bench") for shard in target.shards}
    directory = MemoryEndpointDirectory({shard: (Endpoint(shard, "127.0.0.1", 1),) for shard in shards})
    app = create_app(
        engines=MemoryEngineSource(engine), dispatcher=Dispatcher(MemoryTransport(answered), directory), tracer=tracer
    )
    best_s = 1.0
    for _ in range(int(repeats)):
        began_s = time.process_time()
        for _ in range(int(requests)):
            await app(dict(scope), receive, send)
        best_s = min(best_s, (time.process_time() - began_s) / int(requests))
    return best_s

print(json.dumps([asyncio.run(main()) * 1e6, start_ms, start_mb]), flush=True)
os._exit(0)
"""


def run() -> str:
    """Measure, and give the section of the report as Markdown."""
    found: dict[str, list[list[float]]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as directory, collector() as sink:
        data = Path(directory, "bundle")
        data.write_bytes(bundle(rule_set(100)))
        for _ in range(ROUNDS):
            for mode, variables in MODES.items():
                found[mode].append(_measured(data, mode, {**sink.variables(), **variables}))
    medians = {mode: [statistics.median(each) for each in zip(*rounds, strict=True)] for mode, rounds in found.items()}
    off_us = medians["off"][0]
    rows = [f"| {mode} | {us:.0f} | {us - off_us:.0f} |" for mode, (us, _, _) in medians.items()]
    _, start_ms, start_mb = medians["recorded"]
    return "\n".join(
        [
            "## Traces",
            "",
            f"CPU time of one `/v2` inference in a loop without sockets, as plain Python; medians of {ROUNDS} interleaved rounds, each the best",
            f"of {REPEATS} × {REQUESTS:,} requests. A recorded one has four spans here; that the thread beside it encodes and sends them counts too.",
            "",
            "| traces | µs | more than off, µs |",
            "|---|---:|---:|",
            *rows,
            "",
            f"Where traces are on, a process starts {start_ms:.0f} ms of CPU time later, and takes {start_mb:.0f} MB more.",
        ]
    )


def _measured(data: Path, mode: str, variables: Mapping[str, str]) -> list[float]:
    """Measure in a process of its own: µs for a request, and ms and MB of its start."""
    environment = os.environ | variables
    command = [sys.executable, "-c", _LOOP, str(data), mode, str(REQUESTS), str(REPEATS)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    numbers: list[float] = json.loads(done.stdout)
    return numbers
