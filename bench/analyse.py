"""Seconds of `tidegate rules check`, beside `tidegate rules compile`, which does all but the analysis."""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.rule_sets import COUNTRIES, DEVICES, MODELS, rule_set, write

SIZES = (1_000, 10_000)
ROUNDS = 3
ATTRIBUTES = 12

Rules = list[dict[str, Any]]


def run() -> str:
    """Measure, and give the section of the report as Markdown."""
    lines = [
        "## Checking rules",
        "",
        "Whole processes, from start to report, processor time of one core. The limit is `tidegate rules compile` on the same",
        f"rules: it reads, checks and compiles them, and analyses nothing. Medians of {ROUNDS} interleaved rounds. *Few",
        "attributes*: five, so that most of 10,000 rules are covered by others together. *Many attributes*: twelve, and every",
        "rule looks at four, so that most are reached. *Allow-lists*: each rule lists a hundred members. *Ranges*: windows of",
        "time, versions and numbers with thresholds of their own.",
        "",
        "| rules | kind | check, s | compile, s | check / compile | cannot be reached | undecided |",
        "|---:|---|---:|---:|---:|---:|---:|",
    ]
    for size in SIZES:
        for name, (context, rules) in rule_sets(size).items():
            with tempfile.TemporaryDirectory() as folder:
                directory = write(Path(folder) / "rules", rules, context)
                lines.append(_row(size, name, directory))
    return "\n".join([*lines, ""])


def rule_sets(size: int) -> dict[str, tuple[dict[str, Any] | None, Rules]]:
    """By kind: the attributes (None: those of `rule_set`) and the rules."""
    return {
        "few attributes": (None, rule_set(size)),
        "many attributes": _many_attributes(size),
        "allow-lists": _allow_lists(size),
        "ranges": _ranges(size),
    }


def _row(size: int, name: str, directory: Path) -> str:
    command = [sys.executable, "-m", "tidegate.cli", "rules"]
    check = [*command, "check", str(directory), "--json"]
    compile_ = [*command, "compile", str(directory), "--output", str(directory.parent / "bundle")]
    taken = [(_processor_s(check), _processor_s(compile_)) for _ in range(ROUNDS)]
    check_s, compile_s = (statistics.median(each) for each in zip(*taken, strict=True))
    report = json.loads(subprocess.run(check, capture_output=True, check=False).stdout)
    kinds = [finding["kind"] for finding in report["findings"]]
    return (
        f"| {size:,} | {name} | {check_s:.2f} | {compile_s:.2f} | {check_s / compile_s:.2f} "
        f"| {kinds.count('unreachable-rule'):,} | {kinds.count('undecided'):,} |"
    )


def _many_attributes(size: int) -> tuple[dict[str, Any], Rules]:
    draw = random.Random(3)
    names = [f"attribute_{number}" for number in range(ATTRIBUTES)]
    context = {"member_id": {"type": "string", "required": True}} | {name: {"type": "string"} for name in names}
    rules = [
        {
            "id": f"rule-{number}",
            "when": {name: draw.sample(COUNTRIES, draw.randint(1, 5)) for name in draw.sample(names, 4)},
            "serve": draw.choice(MODELS),
        }
        for number in range(size - 1)
    ]
    return context, [*rules, {"id": "default", "serve": MODELS[0]}]


def _allow_lists(size: int) -> tuple[dict[str, Any], Rules]:
    draw = random.Random(4)
    context = {"member_id": {"type": "string", "required": True}, "device": {"type": "string", "values": DEVICES}}
    rules = [
        {
            "id": f"rule-{number}",
            "when": {
                "member_id": [f"m{member}" for member in draw.sample(range(size * 50), 100)],
                "device": draw.choice(DEVICES),
            },
            "serve": draw.choice(MODELS),
        }
        for number in range(size // 10 - 1)
    ]
    return context, [*rules, {"id": "default", "serve": MODELS[0]}]


def _ranges(size: int) -> tuple[dict[str, Any], Rules]:
    draw = random.Random(5)
    context = {
        "member_id": {"type": "string", "required": True},
        "score": {"type": "number"},
        "app_version": {"type": "version"},
    }
    rules: Rules = []
    for number in range(size - 1):
        low, day = draw.randint(0, 10**6), draw.randint(1, 27)
        when: dict[str, Any] = {"score": {"gte": low, "lt": low + draw.randint(1, 10**5)}}
        if draw.random() < 0.5:
            when["app_version"] = {"gte": f"{draw.randint(1, 20)}.{draw.randint(0, 999)}"}
        rule: dict[str, Any] = {"id": f"rule-{number}", "when": when, "serve": draw.choice(MODELS)}
        if draw.random() < 0.3:
            rule["active"] = {"from": f"2099-01-{day:02}", "until": f"2099-{draw.randint(2, 12):02}-{day:02}"}
        rules.append(rule)
    return context, [*rules, {"id": "default", "serve": MODELS[0]}]


def _processor_s(command: list[str]) -> float:
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode not in (0, 1):
        raise RuntimeError(f"{command} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime
