"""Generated rule sets of any size, and contexts that hit them."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

import yaml
from tidegate.rules import compile_directory

COUNTRIES = [first + second for first in "ABCDEFGHIJKLMNO" for second in "ABCDEFGHIJ"]
DEVICES = ["tv", "mobile", "web"]
MODELS = [f"model_{number}" for number in range(50)]

Context = dict[str, Any]


def rule_set(rules: int, seed: int = 1) -> list[dict[str, Any]]:
    """`rules` rules over five attributes; the last one takes whatever is left."""
    draw = random.Random(seed)
    made: list[dict[str, Any]] = []
    for number in range(rules - 1):
        when: dict[str, Any] = {"country": draw.sample(COUNTRIES, draw.choice([1, 1, 2, 3]))}
        if draw.random() < 0.6:
            when["device"] = draw.choice(DEVICES)
        if draw.random() < 0.5:
            when["app_version"] = {"gte": f"{draw.randint(1, 20)}.{draw.randint(0, 9)}"}
        if draw.random() < 0.3:
            when["is_kids"] = draw.random() < 0.5
        if draw.random() < 0.3:
            when["age"] = {"lt": draw.randint(10, 80)}
        made.append({"id": f"rule-{number}", "when": when, "serve": draw.choice(MODELS)})
    return [*made, {"id": "default", "serve": MODELS[0]}]


def split_rules(variants: int) -> list[dict[str, Any]]:
    """One rule: a split among `variants` variants."""
    return [{"id": "split", "split": {MODELS[number]: number + 1 for number in range(variants)}}]


def contexts(count: int, seed: int = 2) -> list[Context]:
    """Contexts with every attribute present."""
    draw = random.Random(seed)
    return [
        {
            "member_id": str(draw.randint(0, 10**6)),
            "country": draw.choice(COUNTRIES),
            "device": draw.choice(DEVICES),
            "app_version": f"{draw.randint(1, 20)}.{draw.randint(0, 9)}.{draw.randint(0, 3)}",
            "is_kids": draw.random() < 0.2,
            "age": draw.randint(5, 90),
        }
        for _ in range(count)
    ]


def bundle(rules: list[dict[str, Any]]) -> bytes:
    """The compiled bundle of one objective, `bench`, with these rules."""
    with tempfile.TemporaryDirectory() as directory:
        return compile_directory(write(Path(directory), rules))


def write(root: Path, rules: list[dict[str, Any]], context: dict[str, Any] | None = None) -> Path:
    """Write a rules directory of one objective, `bench`, with these rules (and other attributes than `contexts` has)."""
    objective = {
        "objective": "bench",
        "context": context
        or {
            "member_id": {"type": "string", "required": True},
            "country": {"type": "string"},
            "device": {"type": "string", "values": DEVICES},
            "app_version": {"type": "version"},
            "is_kids": {"type": "boolean"},
            "age": {"type": "integer"},
        },
        "sticky_key": "member_id",
        "rules": rules,
    }
    fleet = {"shards": {"alpha": {}}, "models": {model: {"shards": ["alpha"]} for model in MODELS}}
    (root / "objectives").mkdir(parents=True)
    (root / "objectives/bench.yaml").write_text(yaml.dump(objective, Dumper=yaml.CSafeDumper, sort_keys=False))
    (root / "fleet.yaml").write_text(yaml.dump(fleet, Dumper=yaml.CSafeDumper))
    return root
