"""Compiles a rules directory to a bundle.

`python -m tidegate.rules.compiler DIR` writes the bundle to standard output, so that a running process can compile in a
child without stalling its own requests; it exits with 1 and the findings on standard error where the rules are wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from os import PathLike
from typing import Any

from tidegate.errors import RulesError
from tidegate.rules.bundle import encode, pack
from tidegate.rules.conditions import rows
from tidegate.rules.contract import Attribute, Caller
from tidegate.rules.directory import read_directory
from tidegate.rules.indexing import dimension, interval_pieces
from tidegate.rules.masks import bits
from tidegate.rules.program import ObjectiveProgram, Program
from tidegate.rules.semantics import resolve_target
from tidegate.rules.sticky import HASH_VERSION


def compile_directory(path: str | PathLike[str]) -> bytes:
    """Compile a rules directory to the canonical bytes of a bundle.

    Raises:
        RulesError: the rules do not compile; it holds every error found.
    """
    program, findings = read_directory(path)
    if findings:
        raise RulesError(findings)
    return emit(program)


def emit(program: Program) -> bytes:
    """The bundle of a program that has no findings."""
    world = program.world
    lines: list[bytes] = []
    objectives: dict[str, Any] = {}
    for objective in sorted(program.objectives, key=lambda each: each.name):
        objectives[objective.name] = _entry(objective) | {"line": len(lines) + 2}
        lines.append(encode(_index(objective)))
        lines += [encode(rule.body) for rule in objective.rules]
    names = {name for objective in program.objectives for name in objective.targets}
    callers = program.callers
    if callers is not None:
        names.update(name for caller in callers.values() for name in caller.overrides or ())
    manifest: dict[str, Any] = {
        "hash_version": HASH_VERSION,
        "fleet": {
            "shards": {
                name: {"replicas": replicas} | ({"scale_to_zero": True} if name in world.sleepers else {})
                for name, replicas in world.shards.items()
            },
            "models": {name: list(shards) for name, shards in world.models.items()},
            "aliases": dict(world.aliases),
        },
        "layers": {name: {"key": list(layer.key)} for name, layer in world.layers.items()},
        "targets": {name: list(resolve_target(name, world.aliases)) for name in sorted(names)},
        "objectives": objectives,
    }
    if callers is not None:
        manifest["callers"] = {name: _caller(caller) for name, caller in callers.items()}
    return pack(manifest, lines)


def _entry(objective: ObjectiveProgram) -> dict[str, Any]:
    callers = {
        rule.body["experiment"]["id"]
        for rule in objective.rules
        if rule.body.get("experiment", {}).get("allocate") == "caller"
    }
    return {
        "summary": objective.summary,
        "owner": objective.owner,
        "context": {name: _attribute(attribute) for name, attribute in objective.attributes.items()},
        "sticky_key": list(objective.sticky_key),
        "timeout_ms": objective.timeout_ms,
        "allocations": sorted(callers),
        "targets": list(objective.targets),
    } | ({"unknown_attributes": "refuse"} if objective.unknown_attributes == "refuse" else {})


def _attribute(attribute: Attribute) -> dict[str, Any]:
    optional = {
        "required": attribute.required or None,
        "values": attribute.values,
        "default": attribute.default,
        "header": attribute.header,
    }
    return {"type": attribute.type} | {key: value for key, value in optional.items() if value is not None}


def _caller(caller: Caller) -> dict[str, Any]:
    limits = {"rate_per_s": caller.rate_per_s, "concurrency": caller.concurrency}
    return {
        "objectives": "*" if caller.objectives is None else caller.objectives,
        "overrides": "*" if caller.overrides is None else caller.overrides,
        "traffic": caller.traffic,
    } | {key: value for key, value in limits.items() if value is not None}


def _index(objective: ObjectiveProgram) -> dict[str, Any]:
    table = [(position, row) for position, rule in enumerate(objective.rules) for row in rows(rule.when)]
    rule_of_row = [position for position, _ in table]
    predicates = [row for _, row in table]
    count = len(table)
    bodies: list[Mapping[str, Any]] = [objective.rules[position].body for position in rule_of_row]
    data: dict[str, Any] = {
        "rows": count,
        "rules": len(objective.rules),
        "dimensions": {
            name: tables
            for name, attribute in objective.attributes.items()
            if (tables := dimension(attribute, predicates)) is not None
        },
        "layers": _layers(bodies),
    }
    if count != len(objective.rules):
        data["rule_of_row"] = rule_of_row
    windows = {row: [_window(body["active"])] for row, body in enumerate(bodies) if "active" in body}
    if windows:
        data["windows"] = interval_pieces(windows, count)
    allocated = {
        row: body["experiment"]
        for row, body in enumerate(bodies)
        if body.get("experiment", {}).get("allocate") == "caller"
    }
    if allocated:
        data["allocated"] = _allocated(allocated, count)
    return data


def _window(bounds: list[Any]) -> tuple[float, float]:
    start, end = bounds
    return (float("-inf") if start is None else start, float("inf") if end is None else end)


def _layers(bodies: list[Mapping[str, Any]]) -> dict[str, Any]:
    count = len(bodies)
    ranges: dict[str, dict[int, list[tuple[float, float]]]] = {}
    for row, body in enumerate(bodies):
        experiment = body.get("experiment", {})
        if experiment.get("allocate") == "layer":
            owned = [(first, last + 1) for first, last in experiment["ranges"]]
            ranges.setdefault(experiment["layer"], {})[row] = owned
    return {
        name: {
            "pieces": interval_pieces(owned, count),
            "free": f"{bits([row for row in range(count) if row not in owned], count):x}",
        }
        for name, owned in ranges.items()
    }


def _allocated(experiments: Mapping[int, Mapping[str, Any]], count: int) -> dict[str, Any]:
    cells: dict[str, dict[str, list[int]]] = {}
    for row, experiment in experiments.items():
        for cell in experiment["cells"]:
            cells.setdefault(experiment["id"], {}).setdefault(str(cell["cell"]), []).append(row)
    return {
        "free": f"{bits([row for row in range(count) if row not in experiments], count):x}",
        "cells": {
            name: {cell: f"{bits(members, count):x}" for cell, members in members_of.items()}
            for name, members_of in cells.items()
        },
    }


def main(arguments: list[str]) -> int:
    """Compile the directory named by the only argument to standard output; the exit code is 0, or 1 with findings."""
    try:
        data = compile_directory(arguments[0])
    except RulesError as error:
        print(error, file=sys.stderr)
        return 1
    sys.stdout.buffer.write(data)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
