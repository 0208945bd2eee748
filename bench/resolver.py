"""What one process of a resolver takes for a decision, in CPU time: Envoy's question over kept connections, answered from 1 000 rules."""

from __future__ import annotations

import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tidegate.bootstrap.compiled import find_compiled
from tidegate.bootstrap.saved_bundle import SavedBundle
from tidegate.console.processes import process_figures

from bench import rule_sets
from bench.envoy import free_port
from bench.load import Peer, crowd, throughput_per_s

RULES = 1_000
CONTEXTS = 997
CONNECTIONS = 16
ROUNDS = 7
SECONDS = 2.0


def run() -> str:
    """Measure, and give the section of the report as Markdown."""
    micros, rate = measured()
    how = "plain Python" if find_compiled() is None else "compiled"
    return f"""\
## Resolving for Envoy

A process of a resolver ({how}) takes **{micros:.0f} µs** of CPU time for a decision by {RULES} rules: Envoy's question with a context of six attributes
over {CONNECTIONS} kept connections, its answer in headers, and the kernel's part of both. That is {1e6 / micros:,.0f} decisions per second and core.
It answered {rate:,.0f} per second, with the generator of the load on the same machine; medians of {ROUNDS} rounds of {SECONDS:g} s.
"""


def measured() -> tuple[float, float]:
    """Return the microseconds of CPU time that a process takes for a decision, and the decisions per second that it answered."""
    with tempfile.TemporaryDirectory() as folder:
        SavedBundle(Path(folder)).write(rule_sets.bundle(rule_sets.rule_set(RULES)))
        with _resolver(folder) as (port, pid):
            peer = Peer("resolver", "127.0.0.1", port, *_requests())
            if {*crowd(peer, 1, 0.2).statuses} != {200}:
                raise RuntimeError("the resolver does not decide")
            throughput_per_s(peer, CONNECTIONS, SECONDS)
            rounds = [_round(peer, pid) for _ in range(ROUNDS)]
    return statistics.median(micros for micros, _ in rounds), statistics.median(rate for _, rate in rounds)


def _round(peer: Peer, pid: int) -> tuple[float, float]:
    """Return the microseconds of CPU time of an answer, and the answers per second."""
    before = _cpu_s(pid)
    rate = throughput_per_s(peer, CONNECTIONS, SECONDS)
    return (_cpu_s(pid) - before) / (rate * SECONDS) * 1e6, rate


def _cpu_s(pid: int) -> float:
    figures = process_figures(pid)
    assert figures is not None
    return figures.cpu_s


def _requests() -> tuple[bytes, tuple[bytes, ...]]:
    made = [
        (
            "POST /authorize/v2/models/bench/infer HTTP/1.1\r\nhost: bench\r\ncontent-length: 0\r\n"
            "x-request-id: 8f5b1c1e-7f8a-4f5b-9b2d-0d1f2a3b4c5d\r\nx-forwarded-proto: http\r\nuser-agent: bench\r\naccept: */*\r\n"
            "inference-header-content-length: 180\r\nx-envoy-expected-rq-timeout-ms: 500\r\n"
            f"tidegate-context: {json.dumps(context)}\r\n\r\n"
        ).encode()
        for context in rule_sets.contexts(CONTEXTS)
    ]
    return made[0], tuple(made[1:])


@contextmanager
def _resolver(folder: str) -> Iterator[tuple[int, int]]:
    port, compiled = free_port(), find_compiled()
    paths = [str(compiled)] if compiled else []
    variables = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
    variables["PYTHONPATH"] = os.pathsep.join([*paths, "functions"])
    command = [sys.executable, "-P", "-m", "tidegate.bootstrap.resolver_process", folder, str(os.getpid())]
    process = subprocess.Popen([*command, f"127.0.0.1:{port}"], stdout=subprocess.PIPE, env=variables)
    assert process.stdout is not None
    try:
        # Its first report says that it listens.
        process.stdout.readline()
        os.set_blocking(process.stdout.fileno(), False)
        yield port, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + 20
        while process.poll() is None and time.monotonic() < deadline:
            process.stdout.read()
            time.sleep(0.05)
