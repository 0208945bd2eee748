"""`GET /v1/graph`: objectives, their rules, the targets that these reach, and the shards of those."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tidegate.console.live_rules import OpenedRules
from tidegate.rules.bundle.rule import Rule


def graph(opened: OpenedRules, objective: str | None = None) -> dict[str, Any]:
    """Return the graph of an objective, or of all, as plain JSON values. Raises `UnknownObjectiveError`."""
    names = opened.revision.objectives if objective is None else [objective]
    objectives = [
        {"name": name, "rules": [{"id": rule.id, "targets": list(_reached(rule))} for rule in opened.of(name)]}
        for name in names
    ]
    reached = dict.fromkeys(target for name in names for rule in opened.of(name) for target in rule.targets())
    targets = [opened.revision.targets[name] for name in reached]
    shards = dict.fromkeys(shard for target in targets for shard in target.shards)
    return {
        "revision": opened.revision.bundle.rules,
        "objectives": objectives,
        "targets": [
            {"target": each.name, "model": each.model, "version": each.version, "shards": list(each.shards)}
            for each in targets
        ],
        "shards": sorted(shards),
    }


def _reached(rule: Rule) -> Iterator[dict[str, Any]]:
    if rule.serve is not None:
        yield _edge(rule.serve, "serve", 1.0)
    weights = rule.split or ()
    for target, weight in weights:
        yield _edge(target, "variant", weight / sum(each for _, each in weights))
    if rule.experiment is not None:
        whole = sum(cell.weight for cell in rule.experiment.cells)
        for cell in rule.experiment.cells:
            yield _edge(cell.serve, "variant", None if rule.experiment.allocate == "caller" else cell.weight / whole)
    for target, percent in rule.shadow:
        yield _edge(target, "shadow", percent / 100)
    for target in rule.fallback:
        yield _edge(target, "fallback", None)


def _edge(target: str, role: str, share: float | None) -> dict[str, Any]:
    return {"target": target, "role": role, "share": share}
