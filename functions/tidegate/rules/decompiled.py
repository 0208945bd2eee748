"""A compiled bundle as the program that it was compiled from, for what draws, explains and tests rules without their files.

A bundle has neither the files' lines nor the holdouts of layers: they are 0 and empty here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidegate.rules.compare.revision import Revision
from tidegate.rules.conditions import from_json
from tidegate.rules.program import Layer, ObjectiveProgram, Program, Rule, World


def decompiled(revision: Revision) -> Program:
    """The program of an opened bundle."""
    fleet = revision.manifest["fleet"]
    objectives = tuple(_objective(name, revision) for name in revision.objectives)
    world = World(
        shards={name: spec["replicas"] for name, spec in fleet["shards"].items()},
        models={name: tuple(shards) for name, shards in fleet["models"].items()},
        aliases=fleet["aliases"],
        layers={name: _layer(name, entry, objectives) for name, entry in revision.manifest["layers"].items()},
    )
    return Program(world, objectives, revision.engine.callers)


def _objective(name: str, revision: Revision) -> ObjectiveProgram:
    contract = revision.engine.objectives[name]
    return ObjectiveProgram(
        name,
        "",
        contract.summary,
        contract.owner,
        contract.attributes,
        contract.sticky_key,
        contract.timeout_ms,
        tuple(Rule(body["id"], 0, from_json(body["when"]), body) for body in revision.rule_lines(name)),
        tuple(revision.manifest["objectives"][name]["targets"]),
        "refuse" if contract.refuses_unknown else "ignore",
    )


def _layer(name: str, entry: Mapping[str, Any], objectives: tuple[ObjectiveProgram, ...]) -> Layer:
    experiments = (rule.body.get("experiment", {}) for each in objectives for rule in each.rules)
    ranges = {
        experiment["id"]: tuple((first, last) for first, last in experiment["ranges"])
        for experiment in experiments
        if experiment.get("layer") == name
    }
    return Layer(tuple(entry["key"]), (), ranges)
