"""Seconds and memory of `tidegate rules test` and `tidegate rules diff`, the latter on compiled bundles."""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tidegate.rules import compile_directory

from bench.analyse import Rules, rule_sets
from bench.rule_sets import MODELS, contexts, rule_set, write

SIZES = (1_000, 10_000)
CASES = 5_000
TESTED_RULES = 1_000
ROUNDS = 3
CHANGED = 0.1

TIDEGATE = [sys.executable, "-m", "tidegate.cli", "rules"]


@dataclass(frozen=True, slots=True)
class Taken:
    """Processor time and peak memory of a process."""

    processor_s: float
    memory_mb: float


def run() -> str:
    """Measure, and give the section of the report as Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        tested = _tested(Path(folder) / "rules")
    lines = [
        "## Testing and comparing rules",
        "",
        f"Whole processes, from start to report, processor time of one core; medians of {ROUNDS} rounds. `tidegate rules test`",
        f"runs {CASES:,} cases over {TESTED_RULES:,} rules in {tested.processor_s:.1f} s and {tested.memory_mb:.0f} MB.",
        "",
        "`tidegate rules diff` compares two compiled bundles, since compiling is measured above. *One*: one rule in the middle",
        "serves another model. *A tenth*: a tenth of the rules do. The kinds are those of the checks. *Decided* is what is",
        "exact: all shares, those that move, or none (then they are estimates with a bound).",
        "",
        "| rules | kind | changed | diff, s | memory, MB | decided |",
        "|---:|---|---|---:|---:|---|",
    ]
    for size in SIZES:
        for name, (context, rules) in rule_sets(size).items():
            with tempfile.TemporaryDirectory() as folder:
                lines += _rows(Path(folder), size, name, context, rules)
    return "\n".join([*lines, ""])


def _rows(folder: Path, size: int, name: str, context: dict[str, Any] | None, rules: Rules) -> list[str]:
    draw = random.Random(6)
    middle = len(rules) // 2
    revisions = {
        "old": rules,
        "one": [_changed(rule) if place == middle else rule for place, rule in enumerate(rules)],
        "a tenth": [_changed(rule) if draw.random() < CHANGED else rule for rule in rules],
    }
    bundles: dict[str, Path] = {}
    for revision, made in revisions.items():
        bundles[revision] = folder / f"{revision}.bundle"
        bundles[revision].write_bytes(compile_directory(write(folder / revision, made, context)))
    found = []
    for changed in ("one", "a tenth"):
        command = [*TIDEGATE, "diff", str(bundles["old"]), str(bundles[changed]), "--json"]
        taken, output = _median(command, (1,))
        (shares,) = json.loads(output)["objectives"]
        decided = "all" if shares["undecided"] is None else "what moves" if shares["exact"] else "none"
        found.append(f"| {size:,} | {name} | {changed} | {taken.processor_s:.2f} | {taken.memory_mb:.0f} | {decided} |")
    return found


def _changed(rule: dict[str, Any]) -> dict[str, Any]:
    return rule | {"serve": MODELS[(MODELS.index(rule["serve"]) + 1) % len(MODELS)]}


def _tested(root: Path) -> Taken:
    write(root, rule_set(TESTED_RULES))
    cases = [
        {"name": f"case {number}", "context": context, "expect": {"reason": "serve"}}
        for number, context in enumerate(contexts(CASES))
    ]
    (root / "cases").mkdir()
    (root / "cases/bench.yaml").write_text(yaml.dump(cases, Dumper=yaml.CSafeDumper))
    return _median([*TIDEGATE, "test", str(root)], (0,))[0]


def _median(command: list[str], expected: tuple[int, ...]) -> tuple[Taken, bytes]:
    """The medians of some rounds, and what the command printed."""
    taken, output = [], b""
    for _ in range(ROUNDS):
        with tempfile.TemporaryFile() as printed:
            process = subprocess.Popen(command, stdout=printed)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode not in expected:
                raise RuntimeError(f"{command} ended with {process.returncode}")
            printed.seek(0)
            output = printed.read()
        # Linux counts in KiB.
        taken.append(Taken(usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024))
    seconds, memory = ([getattr(each, name) for each in taken] for name in ("processor_s", "memory_mb"))
    return Taken(statistics.median(seconds), statistics.median(memory)), output
