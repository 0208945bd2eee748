"""Small rules directories with edits, what `tidegate rules diff` tells of them, and what both engines decide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from tidegate.errors import ContextError
from tidegate.rules import Engine, compile_directory, load_bundle

from tests.cli.rules_runner import rules_json, write

FLEET: dict[str, Any] = {
    "shards": {"cpu": {}},
    "models": {name: {"shards": ["cpu"]} for name in ("base", "better", "best")},
    "aliases": {"base@champion": "base"},
}
RANKING: dict[str, Any] = {
    "objective": "ranking",
    "context": {
        "member_id": {"type": "string", "required": True},
        "country": {"type": "string", "values": ["CA", "SE", "US"], "required": True},
        "device": {"type": "string", "values": ["mobile", "tv"]},
        "version": {"type": "version", "required": True},
    },
    "sticky_key": "member_id",
    "rules": [
        {"id": "sweden", "when": {"country": "SE"}, "serve": "better", "parameters": {"top_k": 20}},
        {"id": "canary", "when": {"version": {"gte": "8.2"}}, "split": {"base@champion": 90, "better": 10}},
        {"id": "default", "serve": "base@champion"},
    ],
}
LAYERS = {"home": {"key": "member_id", "experiments": {"12345": [0, 1999]}}}
EXPERIMENT = {"id": "ab", "experiment": {"id": "12345", "layer": "home", "cells": {1: "base", 2: "better"}}}


def directory(
    root: Path, *, layers: Mapping[str, Any] = LAYERS, fleet: Mapping[str, Any] = FLEET, **ranking: Any
) -> Path:
    """A rules directory: `RANKING` with some keys replaced."""
    files = {"fleet.yaml": fleet, "layers.yaml": layers, "objectives/ranking.yaml": RANKING | ranking}
    return write(root, {name: yaml.safe_dump(document, sort_keys=False) for name, document in files.items()})


def with_rules(*edits: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The rules with edits by place: keys laid over a rule, None deletes it."""
    return [
        {key: value for key, value in (rule | dict(edit)).items() if value is not None}
        for rule, edit in zip(RANKING["rules"], edits, strict=True)
        if edit is not None
    ]


def ranking(told: Any) -> Any:
    (objective,) = told["objectives"]
    return objective


def flows(told: Any) -> dict[tuple[str, str], float]:
    return {(flow["from"], flow["to"]): flow["share"] for flow in ranking(told)["flows"]}


def changes(told: Any) -> list[tuple[str, str, str, str | None]]:
    return [(each["kind"], each["subject"], each["name"], each["field"]) for each in told["changes"]]


def diff(old: Path | str, new: Path | str, *options: object) -> Any:
    return rules_json("diff", old, new, *options, exit_code=1)


def engine(root: Path) -> Engine:
    return load_bundle(compile_directory(root))


def served(decided_by: Engine, context: Mapping[str, Any]) -> str:
    try:
        target = decided_by.decide("ranking", context).target
    except ContextError:
        return "(refused)"
    return target.model if target.version is None else f"{target.model}/{target.version}"


def counted(old: Path, new: Path, contexts: Iterator[dict[str, Any]]) -> Counter[tuple[str, str]]:
    before, after = engine(old), engine(new)
    return Counter((served(before, context), served(after, context)) for context in contexts)
