"""Whether the processes of a local stack stay as small as they are: memory, descriptors and threads over many mixed requests."""

from __future__ import annotations

import asyncio
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tidegate.cli.stacks import read_fleet

from bench.mixed_load import AT_ONCE, CALLERS, EXPECTED, GOOD, MIX, MixedLoad
from bench.stack import stack

REQUESTS = 200_000
STEP = 20_000
MOST_UNFORESEEN = 0.001
"""Of all requests, the most that may end otherwise than they must, such as late on a busy machine."""

HERE = Path("bench")
REPOSITORIES = Path("tests/repositories")
PLACEMENT = {"echo": "alpha", "running_sum": "alpha", "storyteller": "alpha", "twin": "beta"}
OBJECTIVES = {
    "echo": "rules: [{id: default, split: {echo/1: 90, echo: 10}}]",
    "hedged": "rules: [{id: default, serve: echo, hedge_after_ms: 1}]",
    "shadowed": "rules: [{id: default, serve: echo, shadow: {twin: 50}}]",
    "limited": "limits: {rate_per_s: 1}\nrules: [{id: default, serve: echo}]",
    "summing": "rules: [{id: default, serve: running_sum}]",
    "stories": "responses: stream\nrules: [{id: default, serve: storyteller}]",
}
MODULES = {
    "gateway": "tidegate.bootstrap.gateway_process",
    "shadows": "tidegate.bootstrap.shadow_process",
    "workers": "tidegate.bootstrap.worker",
}
"""What the children of the control plane are, by the module that they run."""


class Usage(NamedTuple):
    """Of one or several processes: how many there are, resident memory, open descriptors and threads."""

    processes: int = 0
    resident_bytes: int = 0
    descriptors: int = 0
    threads: int = 0

    def with_process(self, pid: int) -> Usage:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        return Usage(
            self.processes + 1,
            self.resident_bytes + int(status["VmRSS"].split()[0]) * 1024,
            self.descriptors + sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir()),
            self.threads + int(status["Threads"]),
        )


@dataclass(frozen=True, slots=True)
class Sample:
    """What the processes use after a number of requests."""

    requests: int
    usage: dict[str, Usage]


def run() -> str:
    """Measure, and give the section of the report as Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        rules, models = write(Path(folder))
        with stack(str(rules), str(models), "--grpc-port", "0") as url:
            began_s = time.monotonic()
            samples, outcomes = asyncio.run(_measured(url))
            took_s = time.monotonic() - began_s
    return _report(samples, outcomes, took_s)


async def _measured(url: str) -> tuple[list[Sample], dict[str, Counter[str]]]:
    gateway = read_fleet(url)["gateway"]
    load = MixedLoad(url, gateway["grpc"])
    samples = [Sample(0, usage(gateway["pid"]))]
    while load.requests < REQUESTS:
        await load.send(STEP)
        samples.append(Sample(load.requests, usage(gateway["pid"])))
        print(samples[-1], file=sys.stderr, flush=True)
    await load.close()
    if read_fleet(url)["gateway"]["pid"] != gateway["pid"]:
        raise RuntimeError("the gateway's process ended")
    return samples, load.outcomes


def write(folder: Path) -> tuple[Path, Path]:
    """Write rules and models for requests of every kind."""
    models = Path(shutil.copytree(HERE / "models", folder / "models"))
    for name in ("echo", "echo_step"):
        copy = Path(shutil.copytree(models / name, models / name.replace("echo", "twin"))) / "config.pbtxt"
        copy.write_text(copy.read_text().replace("echo", "twin"))
    shutil.copytree(REPOSITORIES / "small" / "running_sum", models / "running_sum")
    shutil.copytree(REPOSITORIES / "streaming" / "storyteller", models / "storyteller")
    rules = folder / "rules"
    (rules / "objectives").mkdir(parents=True)
    fleet = {
        "shards": {"alpha": {"replicas": 2}, "beta": {}},
        "models": {model: {"shards": [shard]} for model, shard in PLACEMENT.items()},
    }
    (rules / "fleet.yaml").write_text(json.dumps(fleet))
    callers = {
        f"caller-{number}": {"objectives": "*", "overrides": "*", "rate_per_s": 10_000, "concurrency": 1_000}
        for number in range(CALLERS)
    }
    (rules / "callers.yaml").write_text(json.dumps({"callers": callers}))
    head = (HERE / "rules" / "objectives" / "echo.yaml").read_text().partition("rules:")[0]
    for name, what in OBJECTIVES.items():
        text = head.replace("objective: echo", f"objective: {name}") + what + "\n"
        (rules / "objectives" / f"{name}.yaml").write_text(text)
    return rules, models


def usage(gateway: int) -> dict[str, Usage]:
    """Return what the processes of a stack use, but not its Triton servers, given the gateway's."""
    control = _parent(gateway)
    found = {"control plane": Usage().with_process(control)}
    for pid in _descendants(control):
        for name, module in MODULES.items():
            if module in Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0"):
                found[name] = found.get(name, Usage()).with_process(pid)
    return found


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _descendants(pid: int) -> Iterator[int]:
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in map(int, path.read_text().split()):
            yield child
            yield from _descendants(child)


def _report(samples: list[Sample], outcomes: dict[str, Counter[str]], took_s: float) -> str:
    """Write the table. Raises `RuntimeError` if too many requests ended otherwise than they must."""
    unforeseen = _unforeseen(outcomes)
    count = sum(map(Counter.total, unforeseen.values()))
    if count > MOST_UNFORESEEN * samples[-1].requests:
        raise RuntimeError(f"requests ended otherwise than they must: {unforeseen}")
    names = list(samples[-1].usage)
    half = [each for each in samples if each.requests >= samples[-1].requests // 2]
    lines = [
        "## Endurance",
        "",
        f"{samples[-1].requests:,} requests of {len(MIX)} kinds in turn by chance, {AT_ONCE} at a time, to two Tritons and one for shadows:",
        "JSON and binary, compressed, of 1 MiB, to `/v2`, `/v1` and over gRPC, streams, sequences, hedged and shadowed ones, such as are",
        f"refused (400, 403, 404, 429, 505), and callers that leave; {CALLERS} callers, and a context of its own in each. They took {took_s:.0f} s;",
        f"{count} ended otherwise than they must. Resident memory in MB, open descriptors and threads of each process:",
        "",
        f"| requests | {' | '.join(f'{name}, MB | descriptors | threads' for name in names)} |",
        f"|---:|{'---:|---:|---:|' * len(names)}",
    ]
    for each in samples:
        cells = []
        for name in names:
            used = each.usage.get(name)
            cells.append(" | | " if used is None else f"{_mb(used)} | {used.descriptors} | {used.threads}")
        lines.append(f"| {each.requests:,} | {' | '.join(cells)} |")
    added = [f"{name} {_added_mb(half, name):+.1f} MB" for name in names]
    slopes = [f"{name} {_slope_bytes(half, name):+.1f} bytes" for name in names]
    return "\n".join(
        [
            *lines,
            "",
            f"The last {half[-1].requests - half[0].requests:,} requests added: {', '.join(added)}. By the line of least squares through",
            f"these samples, each request added: {', '.join(slopes)}.",
            "",
        ]
    )


def _unforeseen(outcomes: dict[str, Counter[str]]) -> dict[str, Counter[str]]:
    found = {
        name: Counter({outcome: count for outcome, count in each.items() if outcome not in EXPECTED.get(name, GOOD)})
        for name, each in outcomes.items()
    }
    return {name: each for name, each in found.items() if each}


def _mb(used: Usage) -> str:
    return f"{used.resident_bytes / 1e6:.1f}"


def _added_mb(samples: list[Sample], name: str) -> float:
    return (samples[-1].usage[name].resident_bytes - samples[0].usage[name].resident_bytes) / 1e6


def _slope_bytes(samples: list[Sample], name: str) -> float:
    return statistics.linear_regression(
        [each.requests for each in samples], [each.usage[name].resident_bytes for each in samples]
    ).slope


if __name__ == "__main__":
    print(run())
