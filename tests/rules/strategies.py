"""Random valid rules directories over the whole language, and contexts that look for their edges.

A directory is drawn by hypothesis, so that a failure shrinks to a small rule set. Its contexts come from a seeded
generator, because there are many per directory: they are built from the values that the rules mention, thresholds and
their neighbours, absent attributes, wrong types, attributes that nobody declared, and allocations known and unknown.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from hypothesis import strategies as st

from .oracle import Directory, Yaml, as_list, instant, is_of_type, ordered

T = TypeVar("T")
STRINGS = ["US", "NO", "on", "", "true", "1", "null", "é", "smart", "smart-tv", "tv", "~", "a: b", "#x", "2026-03-01"]
INTEGERS = [-5, -1, 0, 1, 2, 7, 8, 1000, 2**53, 2**53 + 1]
NUMBERS = [-1.5, -1, 0, 0.25, 1, 1.0, 2.5, 3, 1000, 1048576.5]
VERSIONS = ["0.1", "8", "8.2", "8.2.0", "8.2.1-1", "8.2.1-alpha", "8.2.1-alpha.1", "8.2.1-alpha.beta", "8.2.1-rc.2",
            "8.2.1-rc.10", "8.2.1", "8.2.1+build.7", "8.10", "9.0.0.1", "2026.11.23"]  # fmt: skip
POOLS: dict[str, list[Any]] = {
    "string": STRINGS,
    "integer": INTEGERS,
    "number": NUMBERS,
    "version": VERSIONS,
    "boolean": [True, False],
    "set": STRINGS,
}
TYPES = list(POOLS)
OPERATORS = {
    "string": ["not", "in", "prefix", "suffix", "present"],
    "integer": ["not", "in", "gt", "gte", "lt", "lte", "present"],
    "number": ["not", "in", "gt", "gte", "lt", "lte", "present"],
    "version": ["not", "in", "gt", "gte", "lt", "lte", "present"],
    "boolean": ["not", "in", "present"],
    "set": ["contains_any", "contains_all", "present"],
}
INSTANTS = ["2026-02-28", "2026-03-01T00:00:00Z", "2026-03-01T12:00:00+02:00", "2026-03-01T10:00:00.500Z",
            "2026-03-01T11:00:00", "2026-06-30T23:59:59-05:00", "2027-01-01"]  # fmt: skip


class PlainDumper(yaml.CSafeDumper):
    """Writes a value that stands in two places out twice: rules know no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def write_yaml(document: Yaml, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.dump(document, Dumper=PlainDumper, sort_keys=False, allow_unicode=True), encoding="utf-8")


def write_directory(directory: Directory, root: Path) -> Path:
    """Write the directory's YAML files under `root`."""
    write_yaml(directory.fleet, root / "fleet.yaml")
    write_yaml(directory.layers, root / "layers.yaml")
    for name, document in directory.objectives.items():
        write_yaml(document, root / "objectives" / f"{name}.yaml")
    return root


def small_fleet(*models: str, aliases: Yaml | None = None) -> Yaml:
    """A fleet of one shard that holds the models."""
    placed = {model: {"shards": ["cpu"]} for model in models}
    return {"shards": {"cpu": {"replicas": 1}}, "models": placed, "aliases": aliases or {}}


class Choices:
    """Small choices, each one draw of a cached integer strategy: ten times faster than a strategy per choice."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw

    def whole(self, low: int, high: int) -> int:
        return self.draw(st.integers(low, high))

    def pick(self, items: Sequence[T]) -> T:
        return items[self.whole(0, len(items) - 1)]

    def once_in(self, times: int) -> bool:
        return self.whole(0, times - 1) == times - 1

    def some(self, items: Iterable[T], low: int, high: int) -> list[T]:
        """Between `low` and `high` of the items, or all of them, without repetition and in any order."""
        left = list(items)
        size = self.whole(min(low, len(left)), min(high, len(left)))
        return [left.pop(self.whole(0, len(left) - 1)) for _ in range(size)]

    def values(self, kind: str, pool: list[Any], low: int, high: int) -> list[Any]:
        """Distinct values; two spellings of one version count as one."""
        distinct = {repr(ordered(kind, value)): value for value in self.some(pool, low, high)}
        return list(distinct.values())


@st.composite
def directories(draw: st.DrawFn) -> Directory:
    choose = Choices(draw)
    fleet = fleet_file(choose)
    layers = layers_file(choose)
    versions = [f"{model}/{version}" for model in fleet["models"] for version in (1, 3)]
    targets = [*fleet["models"], *fleet["aliases"], *versions]
    free = [(layer, experiment) for layer, spec in layers.items() for experiment in spec["experiments"]]
    names = ["title_ranking", "search"][: choose.whole(1, 2)]
    return Directory({name: objective_file(choose, name, targets, layers, free) for name in names}, fleet, layers)


def fleet_file(choose: Choices) -> Yaml:
    shards = ["cpu", "gpu-a", "gpu-b"][: choose.whole(1, 3)]
    models = ["ranker", "ranker_v2", "popularity", "svd"][: choose.whole(2, 4)]
    meant = [*models, *(f"{model}/2" for model in models)]
    aliases = choose.some(["ranker@champion", "ranker@challenger"], 0, 2)
    return {
        "shards": {shard: {"replicas": choose.whole(1, 3)} for shard in shards},
        "models": {model: {"shards": choose.some(shards, 1, 3)} for model in models},
        "aliases": {alias: choose.pick(meant) for alias in aliases},
    }


def layers_file(choose: Choices) -> Yaml:
    layers: Yaml = {}
    for name in ["home", "search_page"][: choose.whole(0, 2)]:
        cuts = sorted({choose.whole(1, 9999) for _ in range(choose.whole(2, 7))})
        owned: dict[str, list[list[int]]] = defaultdict(list)
        for first, last in zip([0, *cuts], [*cuts, 10000], strict=True):
            owner = choose.pick([f"{name}-1", f"{name}-2", f"{name}-3", "holdout", "nobody"])
            owned[owner].append([first, last - 1])
        written = {owner: many[0] if len(many) == 1 and choose.once_in(2) else many for owner, many in owned.items()}
        written.pop("nobody", None)
        layer: Yaml = {"key": choose.pick(["member_id", ["account", "member_id"], ["member_id"]])}
        if "holdout" in written:
            layer["holdout"] = written.pop("holdout")
        layers[name] = layer | {"experiments": written}
    return layers


def objective_file(choose: Choices, name: str, targets: list[str], layers: Yaml, free: list[tuple[str, str]]) -> Yaml:
    context: Yaml = {
        "member_id": {"type": "string", **choose.pick([{}, {}, {"required": True}, {"default": "m0"}])},
        "account": {"type": choose.pick(["integer", "version", "string"])},
    }
    for attribute in choose.some(["a", "b", "c", "d", "country"], 0, 5):
        context[attribute] = attribute_spec(choose)
    document: Yaml = {"objective": name, "summary": "Ranks things: #1 & more.", "owner": "team", "context": context}
    keys = choose.some([key for key, spec in context.items() if spec["type"] in ("string", "integer", "version")], 0, 3)
    if keys:
        document["sticky_key"] = keys[0] if len(keys) == 1 and choose.once_in(2) else keys
    if choose.once_in(2):
        document["timeout_ms"] = choose.whole(10, 30000)
    if choose.once_in(2):
        document["fallback"] = fallback(choose, targets)
    count = choose.pick([1, 2, 3, 5, 8, 12])
    ids = ["kids", "v2-canary", "ab_1", "r.4", *(f"r{number}" for number in range(5, 12)), "default"][-count:]
    document["rules"] = [rule(choose, one, document, targets, layers, free) for one in ids]
    return document


def attribute_spec(choose: Choices) -> Yaml:
    kind = choose.pick(TYPES)
    spec: Yaml = {"type": kind}
    pool = POOLS[kind]
    if kind != "boolean" and choose.once_in(3):
        spec["values"] = pool = choose.values(kind, pool, 1, 6)
    extra = choose.pick(["", "", "", "", "required", "default"])
    if extra == "required":
        spec["required"] = True
    elif extra == "default":
        spec["default"] = choose.values(kind, pool, 0, 3) if kind == "set" else choose.pick(pool)
    return spec


def rule(
    choose: Choices, identifier: str, document: Yaml, targets: list[str], layers: Yaml, free: list[tuple[str, str]]
) -> Yaml:
    written: Yaml = {"id": identifier}
    if not choose.once_in(10):
        written["when"] = when_of(choose, document["context"], 2)
    if choose.once_in(5):
        written["active"] = active_window(choose)
    action = choose.pick(["serve", "split", "experiment", "experiment"])
    if action == "serve":
        written["serve"] = choose.pick(targets)
    elif action == "split":
        weights = {target: choose.whole(0, 100) for target in choose.some(targets, 1, 4)}
        written["split"] = weights if any(weights.values()) else dict.fromkeys(weights, 1)
    else:
        written["experiment"] = experiment(choose, f"{document['objective']}-{identifier}", targets, layers, free)
    if choose.once_in(4):
        written["shadow"] = {name: choose.pick([0, 0.5, 10, 100, 33.25]) for name in choose.some(targets, 1, 3)}
    if choose.once_in(4):
        written["fallback"] = fallback(choose, targets)
    if choose.once_in(4):
        written["parameters"] = parameters(choose)
    if choose.once_in(4):
        timeout_ms, hedge_ms = choose.whole(10, 30000), choose.whole(1, 9)
        hedge = {"hedge_at": "p95"} if hedge_ms > 6 else {"hedge_after_ms": hedge_ms}
        written |= {"timeout_ms": timeout_ms, **hedge}
    if choose.once_in(4):
        written["fault"] = choose.pick([{"delay_ms": 5}, {"abort_status": 503, "percent": 12.5}])
    return written


def experiment(choose: Choices, name: str, targets: list[str], layers: Yaml, free: list[tuple[str, str]]) -> Yaml:
    written: Yaml = {"id": name, "allocate": "caller"}
    if free and choose.once_in(2):
        layer, name = free.pop(choose.whole(0, len(free) - 1))
        written = {"id": name, "layer": layer} | choose.pick([{}, {"allocate": "layer"}])
    elif layers and choose.once_in(2):
        written["layer"] = choose.pick(list(layers))
    cells: dict[int | str, Any] = {}
    names: list[int | str] = [1, 2, 3, "A", "B", "7"]
    for cell in choose.some(names, 1, 4):
        arm: Yaml = {"serve": choose.pick(targets)}
        if choose.once_in(2):
            arm["weight"] = choose.whole(0 if cells else 1, 10)
        if choose.once_in(2):
            arm["parameters"] = parameters(choose)
        cells[cell] = arm["serve"] if len(arm) == 1 and choose.once_in(2) else arm
    return written | {"cells": cells}


def when_of(choose: Choices, context: Yaml, depth: int) -> Yaml:
    names = choose.some(context, 0 if depth == 2 else 1, 3)
    when = {name: condition(choose, context[name]) for name in names}
    if depth and choose.once_in(4):
        when["any_of"] = [when_of(choose, context, depth - 1) for _ in range(choose.whole(1, 3))]
    return when


def condition(choose: Choices, spec: Yaml) -> Any:
    kind = spec["type"]
    pool = spec.get("values", POOLS[kind])
    shape = choose.pick(["scalar", "list", "operators", "operators", "absent"])
    if shape == "absent":
        return {"present": False}
    if shape == "operators" or kind == "set":
        operators = choose.some(OPERATORS[kind], 1, 2)
        return {operator: operand(choose, operator, kind, pool) for operator in operators}
    return choose.pick(pool) if shape == "scalar" else choose.values(kind, pool, 1, 4)


def operand(choose: Choices, operator: str, kind: str, pool: list[Any]) -> Any:
    if operator == "present":
        return True
    if operator in ("gt", "gte", "lt", "lte"):
        return choose.pick(pool)
    if operator in ("prefix", "suffix"):
        pieces = sorted({text[:2] for text in pool if text} | {text[-1:] for text in pool if text} | {"x"})
        return choose.pick(pieces) if choose.once_in(2) else choose.some(pieces, 1, 3)
    if operator == "not" and choose.once_in(2):
        return choose.pick(pool)
    return choose.values(kind, pool, 1, 4)


def active_window(choose: Choices) -> Yaml:
    first, last = sorted(choose.some(INSTANTS, 2, 2), key=instant)
    return choose.pick([{"from": first, "until": last}, {"from": first}, {"until": last}])


def fallback(choose: Choices, targets: list[str]) -> str | list[str]:
    return choose.pick(targets) if choose.once_in(2) else choose.some(targets, 0, 3)


def parameters(choose: Choices) -> Yaml:
    scalars: list[Any] = [20, -3, 0.5, True, False, "fast", "a b;c", "yes", "1", "~"]
    return {name: choose.pick(scalars) for name in choose.some(["top_k", "mode", "min-score", "X1"], 1, 3)}


def contexts(seed: int, directory: Directory, objective: str, count: int) -> Iterator[tuple[Yaml, float]]:
    """`count` contexts for the objective, each with the moment of the decision in Unix seconds."""
    chance = random.Random(seed)
    document = directory.objectives[objective]
    mentioned = mentioned_values(document)
    edges = [instant(text) + shift for text in INSTANTS for shift in (-0.001, 0, 0.001)]
    experiments = [rule["experiment"] for rule in document["rules"] if "experiment" in rule]
    for _ in range(count):
        careless = chance.random() < 0.12
        context: Yaml = {}
        for name, spec in document["context"].items():
            absent = 0.25 if careless or not spec.get("required") else 0
            if chance.random() >= absent:
                context[name] = value_of(chance, spec, mentioned[name], careless)
        if chance.random() < 0.1:
            context["undeclared"] = chance.choice([None, 1, "x", [1]])
        if chance.random() < 0.7:
            context["allocations"] = allocations_of(chance, experiments)
        elif careless:
            context["allocations"] = chance.choice([None, "1", [], 7, {"1": True}, {"1": None}, {"1": 1.5}, {1: 1}])
        yield dict(chance.sample(list(context.items()), len(context))), chance.choice(edges)


def value_of(chance: random.Random, spec: Yaml, mentioned: list[Any], careless: bool) -> Any:
    kind = spec["type"]
    if careless and chance.random() < 0.3:
        return chance.choice(
            [None, True, 1, 1.0, "1", "x", "8.2", "8..2", "v8", float("nan"), float("inf"), [], ["x"], [1], {}, b"x"]
        )
    if "values" in spec and not careless:
        pool = spec["values"]
    else:
        pool = POOLS[kind] + [near for value in mentioned for near in neighbours(chance, kind, value)] * 3
    if kind == "set":
        chosen = chance.sample(pool, chance.randint(0, min(3, len(pool))))
        return chance.choice([list, tuple, set])(chosen)
    if kind in ("string", "integer") and "values" not in spec and chance.random() < 0.4:
        number = chance.randrange(10**6)
        return f"m{number}" if kind == "string" else number
    return chance.choice(pool)


def neighbours(chance: random.Random, kind: str, value: Any) -> list[Any]:
    """The value and what lies just beside it."""
    match kind:
        case "string":
            return [value, f"{value}x", f"x{value}", value[:-1], value.upper()]
        case "integer":
            return [value - 1, value, value + 1]
        case "number":
            return [value, value - 0.25, value + 0.25, float(value), int(value)]
        case "version":
            bare = value.partition("+")[0].partition("-")[0]
            return [
                value,
                bare,
                f"{bare}-0",
                f"{bare}.1",
                f"{bare}.0",
                f"{bare}-zz.{chance.randrange(20)}",
                f"{bare}+x",
            ]
    return [value]


def allocations_of(chance: random.Random, experiments: list[Yaml]) -> Yaml:
    allocations: Yaml = {}
    for experiment in experiments:
        cell = chance.choice([*experiment["cells"], "nowhere", 99])
        if chance.random() < 0.6:
            allocations[experiment["id"]] = chance.choice([cell, str(cell)])
    if chance.random() < 0.3:
        allocations["ended-long-ago"] = chance.choice([1, "A"])
    return allocations


def mentioned_values(document: Yaml) -> dict[str, list[Any]]:
    """The scalars that rules, domains and defaults mention, per attribute."""
    found: dict[str, list[Any]] = {name: [] for name in document["context"]}

    def collect(name: str, wanted: Any) -> None:
        for leaf in leaves(wanted):
            kind = document["context"][name]["type"]
            if is_of_type("string" if kind == "set" else kind, leaf):
                found[name].append(leaf)

    def walk(when: Yaml) -> None:
        for name, wanted in when.items():
            if name == "any_of":
                for item in wanted:
                    walk(item)
            else:
                collect(name, wanted)

    for name, spec in document["context"].items():
        collect(name, [spec.get("values", []), as_list(spec.get("default", []))])
    for rule in document["rules"]:
        walk(rule.get("when", {}))
    return found


def leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, list):
        for item in value:
            yield from leaves(item)
    else:
        yield value
