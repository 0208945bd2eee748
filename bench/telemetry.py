"""What metrics and the log of requests cost: the throughput of a gateway with both against one without, and the time of `GET /metrics`."""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tidegate import stack_file
from tidegate.bootstrap.compiled import find_compiled
from tidegate.bootstrap.stack_metrics import READ_S
from tidegate.cli.stacks import read_fleet
from tidegate.console.processes import process_figures
from tidegate.metrics.exposition import Format
from tidegate.rules import compile_directory

from bench.load import Peer, infer_request, throughput_per_s
from bench.stack import stack
from tests.support.stack import make_repository, write_rules

ROUNDS = int(os.environ.get("TELEMETRY_ROUNDS", "15"))
SECONDS = float(os.environ.get("TELEMETRY_SECONDS", "4"))
CONNECTIONS = 16
VALUES = 256
MODELS = int(os.environ.get("TELEMETRY_MODELS", "300"))
SCRAPES = 7
LATER_S = 0.7
"""How much more time there is between two scrapes each time, so that none is expected."""

PERIOD_S = READ_S + 1.0
"""The time between two that are expected."""
CONTEXT = {"member_id": "1138", "country": "US", "device": "tv"}
OFF, COUNTED, ON = "neither", "counted", "counted and logged"
ENSEMBLE = """\
name: "{name}"
platform: "ensemble"
max_batch_size: 0
input [ {{ name: "SLEEP_MS" data_type: TYPE_INT32 dims: [ 1 ] }} ]
output [ {{ name: "VERSION" data_type: TYPE_INT32 dims: [ 1 ] }} ]
ensemble_scheduling {{
  step [ {{
    model_name: "versioned" model_version: {version}
    input_map {{ key: "SLEEP_MS" value: "SLEEP_MS" }}
    output_map {{ key: "VERSION" value: "VERSION" }}
  }} ]
}}
"""


def run() -> str:
    """Measure, and give the section of the report as Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        with stack("bench/rules", "bench/models") as url:
            server = urlsplit(read_fleet(url)["shards"][0]["endpoints"][0]["url"]).port or 80
            rates = _rates(server, Path(folder))
        return _report(rates, _scraped(Path(folder)))


@dataclass(frozen=True, slots=True)
class Measured:
    """Of each gateway, round by round: answers per second, and microseconds of CPU time for an answer."""

    per_s: dict[str, list[float]]
    cpu_us: dict[str, list[float]]

    def cost(self, name: str) -> tuple[float, float]:
        """Return what one takes of the throughput, and add to the CPU time, as shares: the medians of the rounds' own ratios, so that
        what changes slowly on the machine counts on both sides."""
        pairs = zip(self.per_s[OFF], self.per_s[name], self.cpu_us[OFF], self.cpu_us[name], strict=True)
        found = [(1 - on / off, cpu_on / cpu_off - 1) for off, on, cpu_off, cpu_on in pairs]
        return statistics.median(each for each, _ in found), statistics.median(each for _, each in found)


def _rates(server: int, folder: Path) -> Measured:
    """Measure the gateways in alternating rounds."""
    names = (OFF, COUNTED, ON)
    measured = Measured({name: [] for name in names}, {name: [] for name in names})
    bundle, log = folder / "bundle", folder / "requests.log"
    bundle.write_bytes(compile_directory(Path("bench/rules")))
    with (
        _gateway(server, bundle) as off,
        _gateway(server, bundle, Path("-")) as counted,
        _gateway(server, bundle, log) as on,
    ):
        found = {OFF: off, COUNTED: counted, ON: on}
        for name, (_, port) in found.items():
            throughput_per_s(_peer(name, port), CONNECTIONS, SECONDS)
        for turn in range(ROUNDS):
            for name in (names[turn % 3 :] + names[: turn % 3])[:: 1 if turn % 2 else -1]:
                pid, port = found[name]
                began_s = _cpu_s(pid)
                per_s = throughput_per_s(_peer(name, port), CONNECTIONS, SECONDS)
                measured.per_s[name].append(per_s)
                measured.cpu_us[name].append((_cpu_s(pid) - began_s) * 1e6 / (per_s * SECONDS))
    return measured


def _cpu_s(pid: int) -> float:
    figures = process_figures(pid)
    assert figures is not None
    return figures.cpu_s


@contextlib.contextmanager
def _gateway(server: int, *files: Path) -> Iterator[tuple[int, int]]:
    """Yield the process and the port."""
    compiled = find_compiled()
    if compiled is None:
        raise RuntimeError("the gateway is not compiled: make compiled")
    path = os.pathsep.join([str(compiled), str(Path.cwd())])
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "bench.telemetry_gateway", str(server), *map(str, files)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    try:
        assert process.stdout is not None
        yield process.pid, int(process.stdout.readline())
    finally:
        process.communicate(timeout=20)


def _peer(name: str, port: int) -> Peer:
    headers = {"Tidegate-Context": json.dumps(CONTEXT)}
    return Peer(name, "127.0.0.1", port, infer_request("/v2/models/echo/infer", headers, VALUES))


def _scraped(folder: Path) -> dict[str, Any]:
    """Times of `GET /metrics` of a stack with many models, each of which was asked once, in milliseconds."""
    names = [f"ensemble_{number:03}" for number in range(MODELS)]
    models = make_repository(folder / "models", "versioned")
    with (models / "versioned" / "config.pbtxt").open("a") as config:
        config.write("version_policy: { all {} }\n")
    for number, name in enumerate(names):
        (models / name / "1").mkdir(parents=True)
        (models / name / "1" / ".keep").touch()
        (models / name / "config.pbtxt").write_text(ENSEMBLE.format(name=name, version=number % 3 + 1))
    rules = [{"id": name, "when": {"country": name}, "serve": name} for name in names]
    rules.append({"id": "rest", "serve": names[0]})
    where = write_rules(folder / "rules", {"a": 1}, {name: ["a"] for name in names}, main=json.dumps(rules))
    found: dict[str, Any] = {"read": [], "kept": [], "openmetrics": [], "expected": []}
    with stack(str(where), str(models)) as url:
        known = stack_file.find(url)
        assert known is not None
        for name in names:
            _ask(url, name)
        for turn in range(SCRAPES):
            time.sleep(READ_S + LATER_S * turn)
            for kind, form in (("read", Format.TEXT), ("kept", Format.TEXT), ("openmetrics", Format.OPENMETRICS)):
                took_ms, text = _scrape(url, known.operator_token, form)
                found[kind].append(took_ms)
            found["lines"] = text.count(b"\n")
        due = time.monotonic()
        for turn in range(3 + SCRAPES):
            time.sleep(max(0.0, due - time.monotonic()))
            due += PERIOD_S
            took_ms, _ = _scrape(url, known.operator_token, Format.TEXT)
            if turn >= 3:
                found["expected"].append(took_ms)
    return found


def _ask(url: str, country: str) -> None:
    tensor = {"name": "SLEEP_MS", "shape": [1], "datatype": "INT32", "data": [0]}
    request = urllib.request.Request(
        f"{url}/v2/models/main/infer",
        json.dumps({"inputs": [tensor]}).encode(),
        {"Tidegate-Context": json.dumps({"country": country})},
    )
    urllib.request.urlopen(request, timeout=60).close()


def _scrape(url: str, token: str, form: Format) -> tuple[float, bytes]:
    headers = {"Authorization": f"Bearer {token}", "Accept": form.value}
    began = time.perf_counter()
    with urllib.request.urlopen(urllib.request.Request(f"{url}/metrics", headers=headers), timeout=60) as answer:
        text = answer.read()
    return (time.perf_counter() - began) * 1e3, text


def _report(measured: Measured, scraped: dict[str, Any]) -> str:
    rate, cpu = (
        {name: statistics.median(each) for name, each in found.items()} for found in (measured.per_s, measured.cpu_us)
    )
    took = {kind: statistics.median(scraped[kind]) for kind in ("read", "kept", "openmetrics", "expected")}
    return "\n".join(
        [
            "## Metrics and the log of requests",
            "",
            "Three gateways in front of one real Triton, which echoes 1 kB: one counts each request and hands the counts on once a second, one writes",
            f"a line of the log, too, and one does neither. {CONNECTIONS} connections without a pause; {ROUNDS} rounds of {SECONDS:g} s, the three in turn;",
            "medians, those of the costs of the rounds' own ratios.",
            "",
            "| | requests per second | cost | µs of the gateway's CPU time for each | cost |",
            "|---|---:|---:|---:|---:|",
            *(
                f"| {name} | {rate[name]:,.0f} | {100 * measured.cost(name)[0]:.1f} % | {cpu[name]:.0f} | {100 * measured.cost(name)[1]:.1f} % |"
                for name in (OFF, COUNTED, ON)
            ),
            "",
            f"`GET /metrics` of a stack with {MODELS} models, each of which was asked: {scraped['lines']:,} lines.",
            "",
            "| | ms |",
            "|---|---:|",
            f"| with the fleet's status and the servers' statistics read for it | {took['read']:.0f} |",
            f"| when it is expected, each {PERIOD_S:g} s, and was read for shortly before | {took['expected']:.0f} |",
            f"| rendered again within {READ_S:g} s | {took['kept']:.0f} |",
            f"| … as OpenMetrics | {took['openmetrics']:.0f} |",
            "",
        ]
    )


if __name__ == "__main__":
    print(run())
