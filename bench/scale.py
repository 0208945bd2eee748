"""What a core carries on each data plane: plain Envoy, Envoy with a resolver, and the gateway, each held to one core, by size of body."""

from __future__ import annotations

import json
import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families
from tidegate.bootstrap.compiled import find_filter
from tidegate.bootstrap.resolver_process import METRICS
from tidegate.cli.stacks import read_fleet
from tidegate.console.processes import process_figures
from tidegate.metrics.exposition import Format
from tidegate.rules import load_bundle

from bench import resolver, rule_sets
from bench.bare_resolver import bare_resolver, beside_bare_resolver
from bench.decide import decide_all, timed
from bench.envoy import ROUTING_HEADER, envoy, free_port
from bench.gateway import CONTEXT, MEMBERS
from bench.load import Peer, infer_request, latencies_ms, throughput_per_s
from bench.stack import stack

ROUNDS = int(os.environ.get("SCALE_ROUNDS", "7"))
SECONDS = 2.0
CONNECTIONS = 64
SIZES = {"1 kB": (256, 300), "100 kB": (25_600, 200), "1 MB": (262_144, 100)}
"""The FP32 values of each body, which are also the answer's, and the requests in a round of latencies."""

DIRECT, ENVOY, BARE, UNDECIDED, RESOLVED, INSIDE, GATEWAY = (
    "direct", "plain Envoy", "plain Envoy + bare resolver", "Envoy + bare resolver", "Envoy + resolver", "Envoy that decides", "gateway",
)  # fmt: skip
PATH = "/v2/models/echo/infer"
ROUTE = "/authorize/v2/models/{objective}/infer"
METRICS_S = 2.5
"""After this time the metrics have what was counted before: it is reported once a second, and written as often."""

RULES = 1_000


@dataclass(frozen=True, slots=True)
class Plane:
    """How a request is sent, and the processes that carry it. Those of `python` run Tidegate's own code; where Envoy does, its metrics say
    how long that takes."""

    port: int
    headers: Sequence[dict[str, str]]
    processes: tuple[int, ...] = ()
    python: tuple[int, ...] = ()
    metrics: Path | None = None

    def peer(self, name: str, values: int) -> Peer:
        first, *others = (infer_request(PATH, headers, values) for headers in self.headers)
        return Peer(name, "127.0.0.1", self.port, first, tuple(others))

    def cpu_s(self, pids: Sequence[int]) -> float:
        return sum(figures.cpu_s for pid in pids if (figures := process_figures(pid)) is not None)

    def decided(self) -> tuple[float, float]:
        """The seconds in which Envoy has decided requests, and how many, both since its start."""
        assert self.metrics is not None
        time.sleep(METRICS_S)
        samples = [
            each for family in text_string_to_metric_families(self.metrics.read_text()) for each in family.samples
        ]
        begin = "http_server_request_duration_seconds_"
        sums = {each.name.removeprefix(begin): each.value for each in samples if each.labels.get("http_route") == ROUTE}
        return sums.get("sum", 0.0), sums.get("count", 0.0)

    def memory_mb(self) -> float:
        return sum(f.resident_bytes for pid in self.processes if (f := process_figures(pid)) is not None) / 1e6


@dataclass(frozen=True, slots=True)
class Measured:
    """Of each plane, round by round."""

    p50_ms: dict[str, list[float]]
    per_s: dict[str, list[float]]
    cpu_us: dict[str, list[float]]
    python_us: dict[str, list[float]]

    def added_ms(self, name: str) -> float:
        pairs = zip(self.p50_ms[name], self.p50_ms[DIRECT], strict=True)
        return statistics.median(through - bare for through, bare in pairs)


def run() -> str:
    """Measure, and give the section of the report as Markdown."""
    if find_filter() is None:
        raise RuntimeError("Envoy's filter is not built: make compiled")
    with _planes() as planes:
        for plane in planes.values():
            _hold(plane.processes)
        measured = {size: _measured(planes, *SIZES[size]) for size in SIZES}
        memory = {name: plane.memory_mb() for name, plane in planes.items() if plane.processes}
    return _report(measured, memory)


@contextmanager
def _planes() -> Iterator[dict[str, Plane]]:
    with ExitStack() as running:
        url = running.enter_context(stack("bench/rules", "bench/models"))
        folder = running.enter_context(tempfile.TemporaryDirectory())
        fleet = read_fleet(url)
        endpoint = fleet["shards"][0]["endpoints"][0]["url"]
        plain = running.enter_context(envoy(endpoint, "alpha"))
        plain_pids = _proxies(os.getpid())
        bare_port, bare_pid = running.enter_context(bare_resolver([f"{ROUTING_HEADER}: alpha"]))
        bare = running.enter_context(envoy(endpoint, "alpha", resolver_port=bare_port))
        bare_pids = tuple(set(_proxies(os.getpid())) - set(plain_pids))
        resolved, carriers, deciders = running.enter_context(_resolved(url, Path(folder), "--no-in-process"))
        inside, inner, beside = running.enter_context(_resolved(url, Path(folder, "inside")))
        undecided = beside_bare_resolver(Path(folder, "state"), Path(sys.executable).with_name("envoy"))
        undecided_port, undecided_pid, same_pid = running.enter_context(undecided)
        contexts = [
            {"Tidegate-Context": json.dumps(CONTEXT | {"member_id": str(1138 + number)})} for number in range(MEMBERS)
        ]
        gateway = (fleet["gateway"]["pid"],)
        yield {
            DIRECT: Plane(urlsplit(endpoint).port or 80, [{}]),
            ENVOY: Plane(plain, [{ROUTING_HEADER: "alpha"}], plain_pids),
            BARE: Plane(bare, contexts, (*bare_pids, bare_pid), (bare_pid,)),
            UNDECIDED: Plane(undecided_port, contexts, (undecided_pid, same_pid), (same_pid,)),
            RESOLVED: Plane(resolved, contexts, (*carriers, *deciders), deciders),
            INSIDE: Plane(
                inside, contexts, (*inner, *beside), beside, Path(folder, "inside", "state", METRICS[Format.TEXT])
            ),
            GATEWAY: Plane(urlsplit(url).port or 80, contexts, gateway, gateway),
        }


def _measured(planes: dict[str, Plane], values: int, requests: int) -> Measured:
    p50_ms, per_s, cpu_us, python_us = ({name: list[float]() for name in planes} for _ in range(4))
    measured = Measured(p50_ms, per_s, cpu_us, python_us)
    for name, plane in planes.items():
        latencies_ms(plane.peer(name, values), requests // 2)
    before_all = {name: plane.decided() for name, plane in planes.items() if plane.metrics is not None}
    for turn in range(ROUNDS):
        for name in [*planes][turn % len(planes) :] + [*planes][: turn % len(planes)]:
            plane, peer = planes[name], planes[name].peer(name, values)
            measured.p50_ms[name].append(statistics.median(latencies_ms(peer, requests)))
            before = plane.cpu_s(plane.processes), plane.cpu_s(plane.python)
            rate = throughput_per_s(peer, CONNECTIONS, SECONDS)
            after = plane.cpu_s(plane.processes), plane.cpu_s(plane.python)
            measured.per_s[name].append(rate)
            for found, was, now in zip((measured.cpu_us, measured.python_us), before, after, strict=True):
                found[name].append((now - was) * 1e6 / (rate * SECONDS))
    for name, (seconds, count) in before_all.items():
        seconds_after, count_after = planes[name].decided()
        python_us[name] = [(seconds_after - seconds) * 1e6 / (count_after - count)]
    return measured


@contextmanager
def _resolved(url: str, folder: Path, *options: str) -> Iterator[tuple[int, tuple[int, ...], tuple[int, ...]]]:
    """Run Envoy with one resolver beside a stack; yield its port, Envoy's process, and those of Tidegate."""
    port = free_port()
    folder.mkdir(exist_ok=True)
    command = [
        str(Path(sys.executable).with_name("tidegate")),
        "envoy",
        "run",
        "--stack",
        url,
        "--workers",
        "1",
        *options,
    ]
    command += ["--port", str(port), "--state", str(folder / "state")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        if not process.stdout.readline().startswith("ready"):
            raise RuntimeError(f"Envoy did not start: exit code {process.wait(20)}")
        children = _children(process.pid)
        proxies = _proxies(process.pid)
        yield port, proxies, tuple(pid for pid in children if pid not in proxies)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _children(parent: int) -> tuple[int, ...]:
    found = [
        int(each.name) for each in Path("/proc").iterdir() if each.name.isdigit() and _parent(int(each.name)) == parent
    ]
    return tuple(found) + tuple(each for pid in found for each in _children(pid))


def _parent(pid: int) -> int | None:
    try:
        found = re.search(r"^PPid:\s*(\d+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) if found else None


def _proxies(parent: int) -> tuple[int, ...]:
    """The processes of Envoy that a process started itself."""
    names = {pid: Path(f"/proc/{pid}/comm").read_text().strip() for pid in _children(parent) if _parent(pid) == parent}
    return tuple(pid for pid, name in names.items() if name == "envoy")


def _hold(pids: Sequence[int]) -> None:
    """Hold processes, with all of their threads, to the first core."""
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {0})


def _report(measured: dict[str, Measured], memory: dict[str, float]) -> str:
    decide_us = _decide_us()
    resolve_us = resolver.measured()[0]
    lines = [
        "## Data planes",
        "",
        f"A decision by {RULES:,} rules takes {decide_us:.2f} µs in process, and {resolve_us:.0f} µs of a resolver's process for Envoy: "
        f"{1e6 / decide_us:,.0f} and {1e6 / resolve_us:,.0f} per second and core.",
        "",
        "Below, each plane is held to one core, and carries the request of the section before to one real Triton, whose clients share the machine. "
        "A resolver is one process. A bare one gives every question the same answer: behind plain Envoy a routing key, and behind "
        "Tidegate's configuration one of the resolver's own answers, so that the rest up to the resolver is what it takes to decide. "
        f"Envoy that decides asks no resolver: its filter runs the same code in its own process. "
        f"Throughput is that of {CONNECTIONS} connections; CPU time is the kernel's count for all of a "
        f"plane's processes, and what of it is Python, which in Envoy's process is the mean time of a decision. A core carries a million of microseconds divided by it. Medians of {ROUNDS} interleaved rounds.",
        "",
        "| size | | added p50, ms | of plain Envoy | answers/s | of plain Envoy | CPU µs of a request | of that Python | requests/s of a core |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for size, each in measured.items():
        rates = {name: statistics.median(found) for name, found in each.per_s.items()}
        for name in (ENVOY, BARE, UNDECIDED, RESOLVED, INSIDE, GATEWAY):
            added, cpu_us = each.added_ms(name), statistics.median(each.cpu_us[name])
            lines.append(
                f"| {size} | {name} | {added:.3f} | {added / each.added_ms(ENVOY):.2f} | {rates[name]:,.0f} | {rates[name] / rates[ENVOY]:.2f} "
                f"| {cpu_us:.0f} | {statistics.median(each.python_us[name]):.0f} | {1e6 / cpu_us:,.0f} |"
            )
    shown = ", ".join(f"{name} {megabytes:.0f} MB" for name, megabytes in memory.items())
    lines += ["", f"Resident memory after that: {shown}. What the function takes is below.", ""]
    return "\n".join(lines)


def _decide_us() -> float:
    engine, batch = load_bundle(rule_sets.bundle(rule_sets.rule_set(RULES))), rule_sets.contexts(500)
    work = partial(decide_all, partial(engine.decide, "bench"), batch)
    return statistics.median(timed(work) for _ in range(2 * ROUNDS)) * 1e6 / len(batch)


if __name__ == "__main__":
    print(run())
