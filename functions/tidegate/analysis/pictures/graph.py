"""The graph of a picture of the rules: objectives, their rules, the targets that these serve, and the shards of those.

Many rules are drawn as few: neighbours that serve the same become one node, and beyond a limit any neighbours do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain, groupby
from math import ceil
from typing import Any

from tidegate.language.program import ObjectiveProgram, Program
from tidegate.language.semantics import resolve_target
from tidegate.rules.bundle.rule import Rule
from tidegate.rules.conditions import AnyOf, Conjunction, Predicate
from tidegate.rules.values import json_text

ALL_DRAWN = 40
"""Most rules of an objective that are drawn one by one."""

_SIGNS = {
    "in": "is",
    "not": "is not",
    "gt": ">",
    "gte": "≥",
    "lt": "<",
    "lte": "≤",
    "prefix": "begins with",
    "suffix": "ends with",
    "contains_any": "has one of",
    "contains_all": "has all of",
}


@dataclass(frozen=True, slots=True)
class Serves:
    """A target that a rule serves. `share` is its part of the rule's requests in 0–1, None where callers allocate;
    `label` says it in words, and is empty where the rule has no choice."""

    target: str
    label: str
    share: float | None


@dataclass(frozen=True, slots=True)
class RuleNode:
    """A rule, or several neighbours: its place and id, its conditions in words, and where its requests go."""

    label: str
    detail: str
    serves: tuple[Serves, ...]
    shadows: tuple[tuple[str, float], ...]
    fallbacks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ObjectiveNode:
    name: str
    owner: str
    rules: tuple[RuleNode, ...]


@dataclass(frozen=True, slots=True)
class TargetNode:
    """A target as written, what it resolves to where that differs (else empty), and its shards, preferred first."""

    name: str
    resolved: str
    shards: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Graph:
    """All nodes. `targets` are in the order in which rules name them."""

    objectives: tuple[ObjectiveNode, ...]
    targets: tuple[TargetNode, ...]
    shards: Mapping[str, int]


def graph_of(program: Program, objective: str | None = None, most: int = 200) -> Graph:
    """Return the graph of a program that has no findings, of one objective or (None) of all.

    `most` is how many rule nodes an objective has at the most.
    """
    chosen = [each for each in program.objectives if objective in (None, each.name)]
    objectives = tuple(
        ObjectiveNode(each.name, each.contract.owner, _few(list(_rules(each)), most))
        for each in sorted(chosen, key=lambda each: each.name)
    )
    names = dict.fromkeys(name for each in objectives for rule in each.rules for name in _names(rule))
    targets = tuple(_target(name, program) for name in names)
    shards = dict.fromkeys(shard for target in targets for shard in target.shards)
    return Graph(objectives, targets, {shard: program.world.fleet.shards[shard].replicas for shard in sorted(shards)})


def _targets(rule: RuleNode) -> tuple[Any, ...]:
    return rule.serves, rule.shadows, rule.fallbacks


def _names(rule: RuleNode) -> list[str]:
    return [*(each.target for each in rule.serves), *(name for name, _ in rule.shadows), *rule.fallbacks]


def _target(name: str, program: Program) -> TargetNode:
    model, version = resolve_target(name, program.world.fleet.aliases)
    resolved = model if version is None else f"{model}/{version}"
    return TargetNode(name, "" if resolved == name else resolved, program.world.fleet.models[model])


def _rules(objective: ObjectiveProgram) -> Iterator[RuleNode]:
    for position, rule in enumerate(objective.rules, 1):
        conditions = "; ".join(_conditions(rule)) or "every request"
        yield RuleNode(f"{position} · {rule.id}", conditions, tuple(_serves(rule)), rule.shadow, rule.fallback)


def _serves(rule: Rule) -> Iterator[Serves]:
    if rule.serve is not None:
        yield Serves(rule.serve, "", 1)
    elif rule.split is not None:
        total = sum(weight for _, weight in rule.split)
        for name, weight in rule.split:
            yield Serves(name, _percent(weight / total), weight / total)
    elif rule.experiment is not None:
        total = sum(each.weight for each in rule.experiment.cells)
        for each in rule.experiment.cells:
            share = None if rule.experiment.allocate == "caller" else each.weight / total
            label = f"cell {each.cell}" + ("" if share is None else f": {_percent(share)}")
            yield Serves(each.serve, label, share)


def _percent(share: float) -> str:
    if 0 < share < 0.0001:
        return "<0.01 %"
    return ">99.9 %" if 0.9995 <= share < 1 else f"{100 * share:.3g} %"


def _conditions(rule: Rule) -> Iterator[str]:
    if (experiment := rule.experiment) is not None:
        place = " by the caller" if experiment.layer is None else f" of layer {experiment.layer}"
        yield f"experiment {experiment.id}{place}"
    yield from _when(rule.when)
    start, end = rule.active or (None, None)
    if start is not None:
        yield f"from {_moment(start)}"
    if end is not None:
        yield f"until {_moment(end)}"


def _when(conjunction: Conjunction) -> Iterator[str]:
    for term in conjunction:
        if isinstance(term, AnyOf):
            yield " or ".join("(" + ", ".join(_when(alternative)) + ")" for alternative in term.alternatives)
        else:
            yield _words(term)


def _words(predicate: Predicate) -> str:
    if predicate.operator == "present":
        return f"{predicate.attribute} {'present' if predicate.operand else 'absent'}"
    operand = predicate.operand if isinstance(predicate.operand, tuple) else (predicate.operand,)
    return f"{predicate.attribute} {_SIGNS[predicate.operator]} {'|'.join(map(json_text, operand))}"


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")


def _few(rules: Sequence[RuleNode], most: int) -> tuple[RuleNode, ...]:
    """Return the rules themselves if they are few, else groups of neighbours."""
    if len(rules) <= min(ALL_DRAWN, most):
        return tuple(rules)
    groups = [list(group) for _, group in groupby(rules, key=_targets)]
    size = ceil(len(groups) / most)
    chunks = [list(chain(*groups[start : start + size])) for start in range(0, len(groups), size)]
    return tuple(_group(chunk) for chunk in chunks)


def _group(rules: list[RuleNode]) -> RuleNode:
    first, last = rules[0], rules[-1]
    if len(rules) == 1:
        return first
    together = replace(first, label=f"{first.label} … {last.label}", detail=f"{len(rules)} rules")
    if all(_targets(rule) == _targets(first) for rule in rules):
        return together
    served = dict.fromkeys(each.target for rule in rules for each in rule.serves)
    fallbacks = dict.fromkeys(name for rule in rules for name in rule.fallbacks)
    serves = tuple(Serves(name, "", 1 / len(served)) for name in served)
    return replace(together, serves=serves, shadows=(), fallbacks=tuple(fallbacks))
