"""Contexts per second of `tidegate rules replay`, beside reading the same lines as JSON and nothing else."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.rule_sets import MODELS, bundle, contexts, rule_set

LINES = 500_000
ROUNDS = 3
SPLITS = {0: "no split", 20: "a fifth of what is left is split", 100: "all that is left is split"}
"""Which percentage of the contexts that no other rule takes a split does, and how the report says it."""

_LIMIT = """
import json, sys
with open(sys.argv[1], encoding="utf-8") as log:
    for line in log:
        json.loads(line)
"""


def run() -> str:
    """Measure, and give the section of the report as Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        seconds = _measure(Path(folder))
    limit_s = seconds.pop("json.loads")
    lines = [
        "## Replaying a log",
        "",
        f"Whole processes, from start to report, on {LINES:,} lines with six attributes and a time each, about half of them",
        "distinct members; processor time of one core. The limit is a program that calls `json.loads` on each line and does",
        f"nothing else. Medians of {ROUNDS} interleaved rounds. With 10 rules most contexts are left for the last ones, with",
        "1,000 few are; what a split costs is its hashes.",
        "",
        "| rules | log | contexts/s | time / limit |",
        "|---|---|---:|---:|",
        f"| limit: `json.loads` alone | plain | {LINES / limit_s:,.0f} | 1.0 |",
    ]
    for name, taken_s in seconds.items():
        lines.append(f"| {name} | {LINES / taken_s:,.0f} | {taken_s / limit_s:.1f} |")
    return "\n".join([*lines, ""])


def _measure(folder: Path) -> dict[str, float]:
    plain, packed = _write_log(folder)
    commands = {"json.loads": [sys.executable, "-c", _LIMIT, str(plain)]}
    for size in (10, 1_000):
        for share, what in SPLITS.items():
            rules, other = _write_rules(folder, size, share)
            name = f"{size:,}, {what}"
            commands[f"{name} | plain"] = _replay(rules, plain)
            if share == 20:
                commands[f"{name} | gzip"] = _replay(rules, packed)
                commands[f"{name}, `--against` | plain"] = [*_replay(rules, plain), "--against", str(other)]
    samples: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            samples[name].append(_processor_s(command))
    return {name: statistics.median(taken) for name, taken in samples.items()}


def _replay(rules: Path, log: Path) -> list[str]:
    return [sys.executable, "-m", "tidegate.cli", "rules", "replay", str(rules), "--log", str(log), "--json"]


def _write_log(folder: Path) -> tuple[Path, Path]:
    plain, packed = folder / "log.jsonl", folder / "log.jsonl.gz"
    with plain.open("w", encoding="utf-8") as log:
        for number, context in enumerate(contexts(LINES)):
            at = f"2026-11-{1 + number % 28:02}T{number % 24:02}:{number % 60:02}:00.000Z"
            log.write(json.dumps({"at": at, "objective": "bench", "context": context}) + "\n")
    with plain.open("rb") as log, gzip.open(packed, "wb", 6) as stream:
        shutil.copyfileobj(log, stream)
    return plain, packed


def _write_rules(folder: Path, size: int, share: int) -> tuple[Path, Path]:
    """Two bundles of `size` rules whose last ones split `share` percent of what no rule above takes, in other weights."""
    files = []
    for weight in (5, 50):
        rules = rule_set(size)
        split = {"id": "split", "split": {MODELS[0]: 100 - weight, MODELS[1]: weight}}
        if share:
            rules[-1:] = [
                split | ({"when": {"age": {"lt": 5 + 86 * share // 100}}} if share < 100 else {}),
                *rules[-1:],
            ]
        file = folder / f"rules-{size}-{share}-{weight}"
        file.write_bytes(bundle(rules if share < 100 else rules[:-1]))
        files.append(file)
    return files[0], files[1]


def _processor_s(command: list[str]) -> float:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime
