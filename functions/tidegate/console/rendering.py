"""Writes the rules of a bundle as files again: the same rules, without the author's comments, order of keys and unused layers."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

import yaml

from tidegate.analysis.compare.changes import author_form
from tidegate.analysis.compare.revision import Revision
from tidegate.rules.bundle.manifest import ATTRIBUTE, CALLER, OBJECTIVE, SHARD
from tidegate.rules.bundle.rule import Experiment, Rule

WIDTH = 120


def rendered(revision: Revision) -> dict[str, str]:
    """Return the files of all rules by their path. They compile to the same revision, where the targets of the bundle are as written
    (see `tidegate.analysis.compare.comparable.as_files`)."""
    manifest = revision.manifest
    fleet = manifest.fleet
    documents: dict[str, Any] = {
        "fleet.yaml": {
            "shards": {name: SHARD.write(shard) for name, shard in fleet.shards.items()},
            "models": {name: {"shards": list(shards)} for name, shards in fleet.models.items()},
            **({"aliases": dict(fleet.aliases)} if fleet.aliases else {}),
        }
    }
    if manifest.layers:
        documents["layers.yaml"] = _layers(revision)
    if manifest.callers is not None:
        documents["callers.yaml"] = {"callers": {name: CALLER.write(each) for name, each in manifest.callers.items()}}
    documents |= {f"objectives/{name}.yaml": _objective(revision, name) for name in revision.objectives}
    return {name: _yaml(document) for name, document in documents.items()}


def _layers(revision: Revision) -> dict[str, Any]:
    every = (rule.experiment for rules in revision.rules.values() for rule in rules)
    found: dict[str, dict[str, Any]] = {
        name: {"key": list(key), "experiments": {}} for name, key in revision.manifest.layers.items()
    }
    for experiment in every:
        if experiment is not None and experiment.layer is not None:
            found[experiment.layer]["experiments"][experiment.id] = [list(each) for each in experiment.ranges]
    return found


def _objective(revision: Revision, name: str) -> dict[str, Any]:
    contract = revision.manifest.objectives[name].contract
    written = OBJECTIVE.write(contract)
    left_out = ("context", "allocations", "name")
    members = {key: value for key, value in written.items() if key not in left_out and value not in (None, [], (), {})}
    context = {each.name: _attribute(ATTRIBUTE.write(each)) for each in contract.attributes.values()}
    times = _times_run(revision)
    return {
        "objective": name,
        **members,
        **({"context": context} if context else {}),
        "rules": [_rule(rule, times, contract.timeout_ms) for rule in revision.rules[name]],
    }


def _times_run(revision: Revision) -> Mapping[str, int]:
    counts: dict[str, int] = {}
    for rules in revision.rules.values():
        for rule in rules:
            if rule.experiment is not None:
                counts[rule.experiment.id] = counts.get(rule.experiment.id, 0) + 1
    return counts


def _attribute(members: Mapping[str, Any]) -> dict[str, Any]:
    named = {key: value for key, value in members.items() if key not in ("header", "name")}
    return named | ({"from": f"header:{members['header']}"} if members.get("header") else {})


def _rule(rule: Rule, times_run: Mapping[str, int], timeout_ms: int | None) -> dict[str, Any]:
    found: dict[str, Any] = {"id": rule.id}
    for field in Rule._fields[1:]:
        value = getattr(rule, field)
        if value in (None, (), {}) or (field == "timeout_ms" and value == timeout_ms):
            continue
        found[field] = _experiment(value, times_run) if isinstance(value, Experiment) else author_form(field, value)
    return found


def _experiment(experiment: Experiment, times_run: Mapping[str, int]) -> dict[str, Any]:
    place: dict[str, Any] = {"allocate": "caller"} if experiment.layer is None else {"layer": experiment.layer}
    shared = {"shared": True} if times_run[experiment.id] > 1 else {}
    cells = {
        cell.cell: {
            "serve": cell.serve,
            "weight": cell.weight,
            **({"parameters": dict(cell.parameters)} if cell.parameters else {}),
        }
        for cell in experiment.cells
    }
    return {"id": experiment.id, **place, **shared, "cells": cells}


class _Dumper(yaml.CSafeDumper):
    """Writes a value that occurs in two places out twice: rules know no anchors."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002  # PyYAML's
        return True


_Dumper.add_multi_representer(StrEnum, lambda dumper, value: dumper.represent_str(value.value))


def _yaml(document: Any) -> str:
    text = yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=WIDTH)
    return str(text)
