"""The share that moves by counting: every case of every attribute, one context after the other, both revisions.

It is written from docs/diff.md and reads the YAML through the oracle. What the hash decides is integrated numerically.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.rules.oracle import (
    Directory,
    Yaml,
    as_list,
    bucket_of,
    context_errors,
    effective_context,
    failing_conditions,
    is_active,
    is_of_type,
    operator_holds,
    ordered,
    pairs,
    race,
)
from tests.rules.strategies import neighbours

REFUSED, UNSERVED = "(refused)", "(no rule)"
ABSENT = object()
FILLER = "§"

Targets = dict[tuple[str, str], float]
"""Shares by (old target, new target)."""

Key = tuple[str, str] | None
"""The attribute whose value is hashed, ("", text) where the text is known, None where there is no key."""


@dataclass(frozen=True)
class Outcome:
    """A rule, and the shares of its targets: by variant, with the salt and the key of the draw."""

    salt: str
    key: Key
    weights: Mapping[str, int]
    targets: Mapping[str, str]


def too_many(old: Directory, new: Directory, objective: str, most: int) -> bool:
    """Whether the two revisions have more contexts than `most`."""
    count = 1
    for _, cases in axes(old, new, objective):
        count *= sum(weight for _, weight in cases)
    return count > most


def moved_by_counting(old: Directory, new: Directory, objective: str, at: float) -> Targets:
    """The share of each pair of targets, uniform over all cases."""
    named = axes(old, new, objective)
    found: Targets = defaultdict(float)
    total = 0.0
    for combination in itertools.product(*(cases for _, cases in named)):
        weight = 1.0
        context: Yaml = {}
        for (name, _), (value, share) in zip(named, combination, strict=True):
            weight *= share
            if value is ABSENT:
                continue
            if name.startswith("allocations."):
                context.setdefault("allocations", {})[name.removeprefix("allocations.")] = value
            else:
                context[name] = value
        total += weight
        for pair, share in of_context(old, new, objective, context, at).items():
            found[pair] += weight * share
    return {pair: share / total for pair, share in found.items()}


def of_context(old: Directory, new: Directory, objective: str, context: Yaml, at: float) -> Targets:
    """The share of each pair of targets in one context, over all buckets of all layers and all draws."""
    layers = sorted({*layers_used(old, objective), *layers_used(new, objective)})
    open_keys = open_key_attributes(old, new, objective)
    choices = []
    for layer in layers:
        keys = [key_of(each, objective, context, layer_key(each, layer), open_keys) for each in (old, new)]
        cuts = sorted({0, 10_000, *bounds(old, layer), *bounds(new, layer)})
        pieces = [(first, (end - first) / 10_000) for first, end in itertools.pairwise(cuts)]
        given = [pieces if key and key[0] else [(bucket_of(layer, key[1]) if key else None, 1.0)] for key in keys]
        if keys[0] == keys[1]:
            choices.append([((bucket, bucket), share) for bucket, share in given[0]])
        else:
            choices.append([((one, other), share * times) for one, share in given[0] for other, times in given[1]])
    held = [rules_that_hold(each, objective, context, at) for each in (old, new)]
    found: Targets = defaultdict(float)
    for combination in itertools.product(*choices):
        share = float(np.prod([weight for _, weight in combination]))
        buckets = [{layer: each[0][side] for layer, each in zip(layers, combination, strict=True)} for side in (0, 1)]
        was = outcome(old, objective, context, held[0], buckets[0], open_keys)
        now = outcome(new, objective, context, held[1], buckets[1], open_keys)
        for pair, part in drawn(was, now).items():
            found[pair] += share * part
    return found


def drawn(was: str | Outcome, now: str | Outcome) -> Targets:
    """The shares of the pairs of targets over all draws."""
    found: Targets = defaultdict(float)
    one, other = as_outcome(was), as_outcome(now)
    same = (one.salt, one.key) == (other.salt, other.key) and one.salt
    join = integrated if same else independent_draws
    for (i, j), share in join(one.weights, other.weights).items():
        found[one.targets[i], other.targets[j]] += share
    return found


def as_outcome(given: str | Outcome) -> Outcome:
    return given if isinstance(given, Outcome) else Outcome("", None, {"": 1}, {"": given})


def independent_draws(old: Mapping[str, int], new: Mapping[str, int]) -> Targets:
    whole, other = sum(old.values()), sum(new.values())
    return {(i, j): old[i] * new[j] / (whole * other) for i in old for j in new}


def integrated(old: Mapping[str, int], new: Mapping[str, int]) -> Targets:
    return integral(tuple(old.items()), tuple(new.items()))


@functools.lru_cache(1024)
def integral(old: tuple[tuple[str, int], ...], new: tuple[tuple[str, int], ...]) -> Targets:
    return same_draws(dict(old), dict(new))


def same_draws(old: Mapping[str, int], new: Mapping[str, int]) -> Targets:
    """The law of docs/diff.md, integrated numerically: r is the new winner's time over the old winner's."""
    names = sorted({*old, *new})
    was = np.array([old.get(name, 0) for name in names], float)
    now = np.array([new.get(name, 0) for name in names], float)
    nodes, weights = np.polynomial.legendre.leggauss(24)
    ratios = [*(was[now > 0] / now[now > 0]), *(2.0**power for power in range(-16, 17))]
    ends = sorted({0.0, 1.0, *(float(r / (1 + r)) for r in ratios)})
    found: Targets = defaultdict(float)
    for i, name in enumerate(names):
        if was[i] and now[i]:
            found[name, name] += float(1 / np.sum(np.maximum(was / was[i], now / now[i])))
    for low, high in itertools.pairwise(ends):
        # r = x / (1 - x) maps [0, 1) to [0, inf).
        x = (high - low) / 2 * nodes + (high + low) / 2
        r, scale = x / (1 - x), (high - low) / 2 * weights / (1 - x) ** 2
        inside = scale / np.sum(np.maximum(was[:, None], now[:, None] * r), axis=0) ** 2
        for i, j in itertools.permutations(range(len(names)), 2):
            if was[i] and now[j]:
                valid = (now[j] * r >= was[j]) & (now[i] * r <= was[i])
                found[names[i], names[j]] += float(was[i] * now[j] * np.sum(inside * valid))
    return {pair: share for pair, share in found.items() if share}


def rules_that_hold(directory: Directory, objective: str, context: Yaml, at: float) -> list[Yaml] | None:
    """The rules whose conditions hold, experiments left aside; None where the context is refused."""
    document = directory.objectives[objective]
    if list(context_errors(document, context)):
        return None
    present = effective_context(document, context)
    return [
        rule
        for rule in document["rules"]
        if is_active(rule.get("active", {}), at)
        and not list(failing_conditions(document, rule.get("when", {}), present))
    ]


def layers_used(directory: Directory, objective: str) -> set[str]:
    """The layers that the objective's experiments own buckets of."""
    experiments = [rule.get("experiment", {}) for rule in directory.objectives[objective]["rules"]]
    return {each["layer"] for each in experiments if "layer" in each and each.get("allocate", "layer") == "layer"}


def outcome(
    directory: Directory,
    objective: str,
    context: Yaml,
    rules: list[Yaml] | None,
    buckets: Mapping[str, int | None],
    open_keys: set[str],
) -> str | Outcome:
    """What the first matching rule does, or why there is none."""
    if rules is None:
        return REFUSED
    document = directory.objectives[objective]
    allocations = context.get("allocations", {})
    for rule in rules:
        if "serve" in rule:
            return target(directory, rule["serve"])
        if "split" in rule:
            key = key_of(directory, objective, context, as_list(document.get("sticky_key", [])), open_keys)
            salt = f"{objective}/{rule['id']}"
            if key is None:
                return target(directory, next(iter(rule["split"])))
            return chosen(directory, salt, key, rule["split"], {name: name for name in rule["split"]})
        experiment = rule["experiment"]
        arms = {
            str(cell): arm if isinstance(arm, dict) else {"serve": arm} for cell, arm in experiment["cells"].items()
        }
        if experiment.get("allocate", "layer") == "caller":
            cell = str(allocations.get(experiment["id"], ""))
            if cell in arms:
                return target(directory, arms[cell]["serve"])
            continue
        bucket = buckets[experiment["layer"]]
        ranges = pairs(directory.layers[experiment["layer"]]["experiments"][experiment["id"]])
        if bucket is not None and any(first <= bucket <= last for first, last in ranges):
            key = key_of(directory, objective, context, layer_key(directory, experiment["layer"]), open_keys)
            assert key is not None
            weights = {cell: arm.get("weight", 1) for cell, arm in arms.items()}
            return chosen(directory, experiment["id"], key, weights, {cell: arm["serve"] for cell, arm in arms.items()})
    return UNSERVED


def chosen(
    directory: Directory, salt: str, key: Key, weights: Mapping[str, int], targets: Mapping[str, str]
) -> str | Outcome:
    assert key is not None
    if not key[0]:
        return target(directory, targets[race(salt, weights, key[1])])
    return Outcome(salt, key, weights, {variant: target(directory, name) for variant, name in targets.items()})


def target(directory: Directory, written: str) -> str:
    _, model, version, _ = directory.resolve(written)
    return model if version is None else f"{model}/{version}"


def layer_key(directory: Directory, layer: str) -> list[str]:
    return as_list(directory.layers[layer]["key"]) if layer in directory.layers else []


def bounds(directory: Directory, layer: str) -> Iterator[int]:
    for ranges in directory.layers.get(layer, {"experiments": {}})["experiments"].values():
        for first, last in pairs(ranges):
            yield from (first, last + 1)


def key_of(directory: Directory, objective: str, context: Yaml, names: list[str], open_keys: set[str]) -> Key:
    document = directory.objectives[objective]
    for name in names:
        spec = document["context"].get(name, {})
        if context.get(name, "") != "":
            return (name, "") if name in open_keys else ("", str(context[name]))
        if spec.get("default", "") != "":
            return "", str(spec["default"])
    return None


def key_attributes(directory: Directory, objective: str) -> set[str]:
    """The attributes that a choice of the objective may hash."""
    document = directory.objectives[objective]
    names: set[str] = set()
    for rule in document["rules"]:
        if "split" in rule:
            names |= set(as_list(document.get("sticky_key", [])))
        experiment = rule.get("experiment", {"allocate": "caller"})
        if experiment.get("allocate", "layer") == "layer":
            names |= set(layer_key(directory, experiment["layer"]))
    return names


def open_key_attributes(old: Directory, new: Directory, objective: str) -> set[str]:
    specs = [directory.objectives[objective]["context"] for directory in (old, new)]
    keys = key_attributes(old, objective) | key_attributes(new, objective)
    return {name for name in keys if not all("values" in each[name] for each in specs if name in each)}


def axes(old: Directory, new: Directory, objective: str) -> list[tuple[str, list[tuple[Any, float]]]]:
    """Every attribute and allocation with its cases: a value that stands for each, and its weight."""
    documents = [directory.objectives[objective] for directory in (old, new)]
    open_keys = open_key_attributes(old, new, objective)
    found: list[tuple[str, list[tuple[Any, float]]]] = []
    for name in sorted({name for document in documents for name in document["context"]}):
        declaring = [document for document in documents if name in document["context"]]
        cases: list[tuple[Any, float]] = []
        for kind in sorted({document["context"][name]["type"] for document in declaring}):
            mine = [document for document in declaring if document["context"][name]["type"] == kind]
            domains = [document["context"][name].get("values") for document in mine]
            conditions = [
                each for document in mine for rule in document["rules"] for each in on(rule.get("when", {}), name)
            ]
            cases += cases_of(kind, domains, conditions, name in open_keys)
        specs = [document["context"][name] for document in declaring]
        defaults = {repr(spec.get("default")) for spec in specs}
        is_default = len(specs) == 2 and len(defaults) == 1 and specs[0].get("default") is not None
        if not is_default and (len(specs) < 2 or not all(spec.get("required") for spec in specs)):
            cases.append((ABSENT, 1))
        found.append((name, cases))
    cells: dict[str, set[str]] = defaultdict(set)
    for document in documents:
        for rule in document["rules"]:
            experiment = rule.get("experiment", {})
            if experiment.get("allocate") == "caller":
                cells[experiment["id"]] |= {str(cell) for cell in experiment["cells"]}
    found += [
        (f"allocations.{experiment}", [(ABSENT, 1), *((cell, 1) for cell in sorted(texts))])
        for experiment, texts in sorted(cells.items())
    ]
    return found


def on(when: Yaml, name: str) -> Iterator[tuple[str, Any]]:
    """Every (operator, operand) on an attribute."""
    for attribute, wanted in when.items():
        if attribute == "any_of":
            for item in wanted:
                yield from on(item, name)
        elif attribute == name:
            yield from wanted.items() if isinstance(wanted, dict) else [("in", as_list(wanted))]


def cases_of(
    kind: str, domains: list[list[Any] | None], conditions: list[tuple[str, Any]], is_open_key: bool
) -> list[tuple[Any, float]]:
    closed = [value for domain in domains for value in domain or []]
    if kind == "boolean":
        domains = [domain or [True, False] for domain in domains]
        closed = [value for domain in domains for value in domain]
    is_closed = all(domain is not None for domain in domains)
    named = [value for operator, operand in conditions if operator in ("in", "not") for value in as_list(operand)]
    if kind == "set":
        mentioned = {each for operator, operand in conditions if operator.startswith("contains") for each in operand}
        elements = sorted(set(closed) if is_closed else mentioned | set(closed) | ({"nobody"} if closed else set()))
        return [(list(some), 1) for size in range(len(elements) + 1) for some in itertools.combinations(elements, size)]
    if is_closed:
        return [(value, 1) for value in distinct(kind, closed)]
    if kind == "string":
        texts = [] if is_open_key else sorted({*named, *closed})
        affixes = [
            sorted({"", *(text for operator, operand in conditions if operator == wanted for text in as_list(operand))})
            for wanted in ("prefix", "suffix")
        ]
        return [
            (text, 1) for text in [*texts, *(f"{one}{FILLER}{other}" for one, other in itertools.product(*affixes))]
        ]
    return pieces(kind, conditions, named, closed, is_open_key)


def distinct(kind: str, values: list[Any]) -> list[Any]:
    return list({repr(ordered(kind, float(value) if kind == "number" else value)): value for value in values}.values())


def pieces(
    kind: str, conditions: list[tuple[str, Any]], named: list[Any], closed: list[Any], is_open_key: bool
) -> list[tuple[Any, float]]:
    """The pieces of a number line: neighbours are in one where all ordered conditions and all equalities agree."""
    comparisons = [(operator, operand) for operator, operand in conditions if operator in ("gt", "gte", "lt", "lte")]
    equalities = closed if is_open_key else [*named, *closed]
    points = [*named, *closed, *(operand for _, operand in comparisons)]

    def signature(value: Any) -> list[bool]:
        met = [operator_holds(kind, operator, operand, True, value) for operator, operand in comparisons]
        return met + [ordered(kind, value) == ordered(kind, other) for other in equalities]

    line = sorted(pool(kind, points), key=lambda value: ordered(kind, value))
    cases: list[tuple[Any, float]] = []
    for _, run in itertools.groupby(line, signature):
        values = list(run)
        if is_open_key:
            if len({repr(ordered(kind, value)) for value in values}) == 1:
                continue
            values = [value for value in values if all(ordered(kind, value) != ordered(kind, each) for each in named)]
        cases += [(value, 1) for value in values[:1]]
    return cases


def pool(kind: str, thresholds: list[Any]) -> list[Any]:
    """Values on, and on both sides of, every threshold."""
    if kind == "integer":
        return sorted({0, 1, *(value + shift for value in thresholds for shift in (-2, -1, 0, 1, 2))})
    if kind == "number":
        points = sorted(set(thresholds))
        between = [(low + high) / 2 for low, high in itertools.pairwise(points)]
        third = [low + (high - low) / 4 for low, high in itertools.pairwise(points)]
        ends = [points[0] - 2, points[0] - 1, points[-1] + 1, points[-1] + 2] if points else [0, 1]
        return [*points, *between, *third, *ends]
    near = [each for value in thresholds for each in neighbours(random.Random(1), "version", value)]
    near += [f"{value.partition('+')[0]}.0" for value in thresholds if "-" in value]
    near += [f"{value.partition('+')[0]}.0.0" for value in thresholds if "-" in value]
    near += [f"{value.partition('+')[0].partition('-')[0]}.0.0.0.0.1-{end}" for value in thresholds for end in (0, 1)]
    return [each for each in ["0-0", "0-1", *near] if is_of_type("version", each)]
