"""The child process of the console: reads a payload as JSON from standard input, and writes what came of it to standard output.

Each task is a function of its payload alone, so that it can be tested without a process.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from base64 import b64decode
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tidegate.console.children import Task

MOST_MEMORY_BYTES = 4 * 1024**3
MOST_CPU_S = 120


def space(payload: Mapping[str, Any]) -> dict[str, float]:
    """Return the share of the contexts that each rule of an objective decides, with every case of every attribute weighted alike, as
    `rules diff` weighs them; a rule that decides none is left out."""
    from tidegate.analysis.compare.revision import open_revision
    from tidegate.analysis.compare.shares import uniform_shares

    side = open_revision(b64decode(payload["bundle"])).side(payload["objective"])
    shares: dict[str, float] = {}
    for flow in uniform_shares(side, side, payload["at"]).flows:
        if flow.new_rule is not None:
            shares[flow.new_rule] = shares.get(flow.new_rule, 0.0) + flow.share
    return shares


def diff(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Compare two bundles at a moment: see `tidegate.analysis.compare.report.Diff`."""
    from tidegate.analysis.compare.comparable import comparable
    from tidegate.analysis.compare.report import compare
    from tidegate.analysis.compare.revision import open_revision

    old, new = comparable(*(open_revision(b64decode(payload[side])) for side in ("old", "new")))
    found = compare(old, new, payload["at"], objective=payload.get("objective"), with_examples=True)
    return {"old": found.old_revision, "new": found.new_revision, **found.as_dict()}


def directory(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Read a rules directory: see `tidegate.console.rules_directory.read_rules`."""
    from tidegate.console.rules_directory import read_rules

    return read_rules(Path(payload["directory"]))


def draft(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Judge edited rules: see `tidegate.console.drafting.judge`."""
    from tidegate.console.drafting import judge

    return judge(payload, time.time())


def placement(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Plan the fleet of a rules directory against the live placement: see `tidegate.models.fleet_plan`."""
    from tidegate.language.directory import read_directory
    from tidegate.models.fleet_plan import plan_fleet, plan_json

    program, _ = read_directory(payload["directory"])
    models = None if payload["models"] is None else Path(payload["models"])
    planned, notes = plan_fleet(program.world.demand, models, payload["current"])
    return plan_json(planned, notes, compared=True)


TASKS: Mapping[Task, Callable[[Mapping[str, Any]], Any]] = {
    Task.SPACE: space,
    Task.DIFF: diff,
    Task.DIRECTORY: directory,
    Task.DRAFT: draft,
    Task.PLACEMENT: placement,
}


def main() -> None:
    """Do the `Task` that the first argument names."""
    # Rules that a person edits may be larger than anything that was ever published.
    resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY_BYTES, MOST_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU_S, MOST_CPU_S))
    answer = TASKS[Task(sys.argv[1])](json.load(sys.stdin.buffer))
    sys.stdout.write(json.dumps(answer, allow_nan=False))
