"""Small random rules directories, and all the contexts that their rules can tell apart.

Values are mentioned from tiny pools, and `cases` lists a value of every class that the pools can make, by hand and not by
the analysis' own reasoning: all short texts, all subsets, every step of a number line and what lies between.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import cache
from random import Random
from typing import Any

from tidegate.rules.sticky import layer_bucket

from tests.rules.oracle import Directory, Yaml, as_list, instant, pairs
from tests.rules.strategies import small_fleet

ABSENT = object()
TEXTS = ["a", "b", "ab", "ba"]
SHORT = ["", *TEXTS, "aa", "aba", "bab"]
MENTIONED: dict[str, list[Any]] = {
    "string": ["", *TEXTS],
    "integer": [0, 1, 2, 4],
    "number": [0, 1, 1.5, 2],
    "version": ["1", "1.1", "2-a", "2"],
    "boolean": [False, True],
    "set": ["x", "y", "z"],
}
CASES: dict[str, list[Any]] = {
    "string": [*SHORT, *(f"{start}§{end}" for start in ["", *TEXTS] for end in ["", *TEXTS])],
    "integer": list(range(-1, 6)),
    "number": [-1, 0, 0.5, 1, 1.25, 1.5, 1.75, 2, 3],
    "version": ["0", "1", "1.0.1", "1.1", "1.2", "2-a", "2-a.0", "2-b", "2", "2.1"],
    "boolean": [False, True],
    "set": [list(some) for size in range(4) for some in itertools.combinations("wxyz", size)],
}
INSTANTS = ["2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"]
MOMENTS = [instant(text) + shift for text in INSTANTS for shift in (-1, 0)]
LAYERS = ["home", "page", "shop"]
KEYS = ["key", "other"]
MOST_CONTEXTS = 1200


def directory(seed: int) -> Directory:
    """A small valid directory with the one objective `small`."""
    while True:
        made = _directory(Random(seed))
        if sum(1 for _ in itertools.islice(contexts(made), MOST_CONTEXTS + 1)) <= MOST_CONTEXTS:
            return made
        seed += 1_000_000


def contexts(made: Directory) -> Iterator[Yaml]:
    """A context of every class that the rules can tell apart, of those that the objective accepts."""
    document = made.objectives["small"]
    names = list(document["context"])
    experiments = {
        each["experiment"]["id"]: list(each["experiment"]["cells"])
        for each in document["rules"]
        if each.get("experiment", {}).get("allocate") == "caller"
    }
    allocated = [[ABSENT, *cells] for cells in experiments.values()]
    for values in itertools.product(*(cases(made, name) for name in names)):
        context = {name: value for name, value in zip(names, values, strict=True) if value is not ABSENT}
        for cells in itertools.product(*allocated):
            given = {name: cell for name, cell in zip(experiments, cells, strict=True) if cell is not ABSENT}
            yield context | ({"allocations": given} if given else {})


def cases(made: Directory, name: str) -> list[Any]:
    """Values of an attribute, and `ABSENT` where it may be."""
    spec = made.objectives["small"]["context"][name]
    found = list(spec.get("values", CASES[spec["type"]]))
    if name in KEYS and "values" not in spec:
        found = [*(SHORT if spec["type"] == "string" else CASES["integer"]), *_keys(spec["type"], _ranges(made, name))]
    return found if spec.get("required") or "default" in spec else [ABSENT, *found]


def _ranges(made: Directory, key: str) -> tuple[tuple[str, tuple[tuple[int, int], ...]], ...]:
    return tuple(
        (name, tuple(sorted((first, last) for each in layer["experiments"].values() for first, last in pairs(each))))
        for name, layer in made.layers.items()
        if key in as_list(layer["key"])
    )


@cache
def _keys(kind: str, layers: tuple[tuple[str, tuple[tuple[int, int], ...]], ...]) -> list[Any]:
    """Keys that no rule mentions: of each prefix (for integers: above and below all that is mentioned), one with each
    combination of ranges in all layers."""
    series: list[list[Any]] = [[f"{start}§{number}" for number in range(400)] for start in ("", *TEXTS)]
    if kind == "integer":
        series = [list(range(5, 400)), list(range(-1, -400, -1))]
    found = []
    for each in series:
        owners: dict[tuple[int | None, ...], Any] = {}
        for key in each:
            buckets = [(layer_bucket(name, str(key)), ranges) for name, ranges in layers]
            owner = tuple(
                next((place for place, (first, last) in enumerate(ranges) if first <= bucket <= last), None)
                for bucket, ranges in buckets
            )
            owners.setdefault(owner, key)
        found += owners.values()
    return found


def _directory(draw: Random) -> Directory:
    keys = KEYS[: draw.choice([1, 1, 2])]
    layers = {name: _layer(draw, name, keys) for name in LAYERS if draw.random() < 0.3 * len(keys)}
    context: Yaml = {name: _spec(draw, draw.choice(["string", "integer"])) for name in keys}
    for name in ["p", "q", "r"][: draw.randint(2 - len(keys), 4 - len(keys))]:
        context[name] = _spec(draw, draw.choice(list(MENTIONED)))
    free = [(name, experiment) for name, layer in layers.items() for experiment in layer["experiments"]]
    rules: list[Yaml] = [_rule(draw, number, context, free) for number in range(draw.randint(1, 7))]
    document = {"objective": "small", "context": context, "sticky_key": "key", "rules": rules}
    return Directory({"small": document}, small_fleet("one", "two"), layers)


def _layer(draw: Random, name: str, keys: list[str]) -> Yaml:
    cuts = draw.choice([[0, 10_000], [0, 5_000, 10_000], [1_000, 4_000, 8_000]])
    experiments = {f"{name}-{first}": [first, end - 1] for first, end in itertools.pairwise(cuts)}
    return {"key": draw.sample(keys, draw.randint(1, len(keys))), "experiments": experiments}


def _spec(draw: Random, kind: str) -> Yaml:
    spec: Yaml = {"type": kind}
    if kind not in ("boolean", "set") and draw.random() < 0.4:
        spec["values"] = draw.sample(MENTIONED[kind], draw.randint(1, 3))
    if draw.random() < 0.3:
        spec["required"] = True
    elif draw.random() < 0.15:
        spec["default"] = as_list(draw.choice(MENTIONED[kind])) if kind == "set" else draw.choice(_pool(spec))
    return spec


def _pool(spec: Yaml) -> list[Any]:
    return list(spec.get("values", MENTIONED[spec["type"]]))


def _rule(draw: Random, number: int, context: Yaml, free: list[tuple[str, str]]) -> Yaml:
    rule: Yaml = {"id": f"r{number}"}
    if draw.random() < 0.85:
        rule["when"] = _when(draw, context, nested=draw.random() < 0.3)
    if draw.random() < 0.15:
        first, last = sorted(draw.sample(INSTANTS, 2))
        rule["active"] = draw.choice([{"from": first}, {"until": last}, {"from": first, "until": last}])
    kind = draw.choice(["serve", "serve", "split", "layer", "caller"])
    if kind == "layer" and free:
        layer, experiment = free.pop(draw.randrange(len(free)))
        rule["experiment"] = {"id": experiment, "layer": layer, "cells": {1: "one", 2: "two"}}
    elif kind == "caller":
        cells = dict.fromkeys(draw.sample([1, 2, 3], 2), "two")
        rule["experiment"] = {"id": f"c{number}", "allocate": "caller", "cells": cells}
    elif kind == "split":
        rule["split"] = {"one": 1, "two": draw.randint(0, 3)}
    else:
        rule["serve"] = "one"
    return rule


def _when(draw: Random, context: Yaml, *, nested: bool) -> Yaml:
    names = draw.sample(list(context), draw.randint(0 if nested else 1, min(2, len(context))))
    when = {name: _condition(draw, context[name], is_key=name in KEYS) for name in names}
    if nested:
        when["any_of"] = [_when(draw, context, nested=False) for _ in range(draw.randint(1, 3))]
    return when


def _condition(draw: Random, spec: Yaml, *, is_key: bool) -> Any:
    kind, pool = spec["type"], _pool(spec)
    if draw.random() < 0.1:
        return {"present": draw.random() < 0.4}
    if kind == "set":
        names = draw.sample(["contains_any", "contains_all"], draw.randint(1, 2))
        return {name: draw.sample(pool, draw.randint(1, 2)) for name in names}
    if kind in ("integer", "number", "version") and draw.random() < 0.6:
        low = draw.choice([{"gt": draw.choice(pool)}, {"gte": draw.choice(pool)}, {}])
        high = draw.choice([{"lt": draw.choice(pool)}, {"lte": draw.choice(pool)}])
        return draw.choice([low or high, high, low | high])
    if kind == "string" and draw.random() < 0.4:
        start = {"prefix": draw.sample(TEXTS, draw.randint(1, 2))}
        end = {} if is_key else {"suffix": draw.choice(TEXTS)}
        return draw.choice([start, end or start, start | end, start | {"not": draw.choice(pool)}])
    some = draw.sample(pool, draw.randint(1, len(pool)))
    return draw.choice([some[0], some, {"not": some}, {"not": some[0]}])
