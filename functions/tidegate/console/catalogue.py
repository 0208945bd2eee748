"""`GET /v1/models`: the models that the live rules need, what calls what, and what each step of an ensemble takes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tidegate.console.live_rules import OpenedRules
from tidegate.console.traffic import Figures
from tidegate.errors import Refusal, RefusedError
from tidegate.models.closure import closure
from tidegate.ports import ModelLoad
from tidegate.ports.models import ModelTimes
from tidegate.rules.nearest import nearest, suggestion

Json = Mapping[str, Any]
Plans = Mapping[str, Iterable[ModelLoad]]

BYTES_PER_MB = 1_000_000
INPUTS, OUTPUTS = "inputs", "outputs"
"""The nodes of a graph that stand for the model's own inputs and outputs."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model that the live rules need: its versions, its config as JSON, its own steps, and the shards that load it."""

    name: str
    versions: tuple[int, ...]
    config: Json
    steps: tuple[str, ...]
    shards: tuple[str, ...]

    @property
    def is_ensemble(self) -> bool:
        return bool(self.steps) or self.config.get("platform") == "ensemble"

    @property
    def backend(self) -> str | None:
        if self.is_ensemble:
            return "ensemble"
        return self.config.get("backend") or self.config.get("platform") or None


class Catalogue:
    """The models of one revision. `plans` say what each shard loads."""

    def __init__(self, opened: OpenedRules, plans: Plans) -> None:
        self._opened = opened
        self.models = _models(plans)
        self._callers: dict[str, list[str]] = {}
        for model in self.models.values():
            for step in model.steps:
                self._callers.setdefault(step, []).append(model.name)
        # By model: the objectives and rules that reach it as a target.
        self._named: dict[str, dict[tuple[str, str], None]] = {}
        for objective, rules in opened.rules.items():
            for rule in rules:
                for target in rule.targets():
                    self._named.setdefault(opened.revision.targets[target].model, {})[objective, rule.id] = None

    def rows(self, figures: Mapping[str, Figures], memory_mb: Mapping[str, int]) -> list[dict[str, Any]]:
        """Return every model as plain JSON values, sorted by name."""
        return [self._row(model, figures, memory_mb) for _, model in sorted(self.models.items())]

    def model(
        self,
        name: str,
        figures: Mapping[str, Figures],
        memory_mb: Mapping[str, int],
        times: Mapping[tuple[str, int], ModelTimes],
        loaded: Iterable[Json],
    ) -> dict[str, Any]:
        """Return one model.

        Args:
            times: what each version took on all servers since it was loaded.
            loaded: the states of its versions on the servers.

        Raises:
            RefusedError: the live rules need no such model.
        """
        model = self.models.get(name)
        if model is None:
            near = suggestion(nearest(name, self.models))
            raise RefusedError(Refusal.UNKNOWN_MODEL, f"the live rules need no model {name[:128]!r}{near}")
        return {
            **self._row(model, figures, memory_mb),
            "closure": list(closure([name], self._steps_of)),
            "blast_radius": self._blast_radius(name),
            "dag": _dag(model, self.models, times),
            "loaded": list(loaded),
        }

    def _steps_of(self, name: str) -> tuple[str, ...]:
        model = self.models.get(name)
        return () if model is None else model.steps

    def _above(self, name: str) -> tuple[str, ...]:
        """Return a model and every ensemble that calls it, directly or through others."""
        return closure([name], lambda each: self._callers.get(each, ()))

    def _rules_of(self, name: str) -> dict[tuple[str, str], None]:
        return {rule: None for each in self._above(name) for rule in self._named.get(each, ())}

    def _blast_radius(self, name: str) -> dict[str, Any]:
        rules = sorted(self._rules_of(name))
        return {
            "objectives": list(dict.fromkeys(objective for objective, _ in rules)),
            "rules": [f"{objective}/{rule}" for objective, rule in rules],
        }

    def _row(self, model: Model, figures: Mapping[str, Figures], memory_mb: Mapping[str, int]) -> dict[str, Any]:
        found = figures.get(model.name)
        memory = memory_mb.get(model.name)
        return {
            "name": model.name,
            "kind": "ensemble" if model.is_ensemble else "model",
            "backend": model.backend,
            "versions": list(model.versions),
            "shards": list(model.shards),
            "memory_bytes": None if memory is None else memory * BYTES_PER_MB,
            "used_by": sorted(self._callers.get(model.name, ())),
            "objectives": list(dict.fromkeys(objective for objective, _ in sorted(self._rules_of(model.name)))),
            "requests_per_s": None if found is None else found.requests_per_s,
            "p50_ms": None if found is None else found.p50_ms,
        }


def _models(plans: Plans) -> dict[str, Model]:
    versions: dict[str, dict[int, None]] = {}
    shards: dict[str, dict[str, None]] = {}
    loads: dict[str, ModelLoad] = {}
    for shard, plan in sorted(plans.items()):
        for load in plan:
            loads[load.model] = load
            versions.setdefault(load.model, {}).update(dict.fromkeys(load.versions))
            shards.setdefault(load.model, {})[shard] = None
    return {
        name: Model(
            name, tuple(sorted(versions[name])), json.loads(load.config or "{}"), load.steps, tuple(shards[name])
        )
        for name, load in loads.items()
    }


def _dag(model: Model, models: Mapping[str, Model], times: Mapping[tuple[str, int], ModelTimes]) -> dict[str, Any]:
    """Return the graph of an ensemble, by its config; any other model is its own only node."""
    steps = model.config.get("ensemble_scheduling", {}).get("step", ()) if model.is_ensemble else ()
    if not steps:
        version = model.versions[-1] if model.versions else None
        node = _node(model.name, model.name, version, times)
        return {"nodes": [{**node, "share": None if node["time_ms"] is None else 1.0}], "edges": []}
    nodes = [
        _node(f"step{place}", step["model_name"], _version(step, models), times) for place, step in enumerate(steps)
    ]
    whole = sum(node["time_ms"] or 0.0 for node in nodes)
    shares = [node["time_ms"] / whole if whole and node["time_ms"] is not None else None for node in nodes]
    return {
        "nodes": [{**node, "share": share} for node, share in zip(nodes, shares, strict=True)],
        "edges": [
            {"from": source, "to": target, "tensor": tensor} for source, target, tensor in _edges(model.config, steps)
        ],
    }


def _node(key: str, name: str, version: int | None, times: Mapping[tuple[str, int], ModelTimes]) -> dict[str, Any]:
    found = None if version is None else times.get((name, version))
    return {
        "id": key,
        "model": name,
        "version": version,
        "time_ms": None if found is None else found.mean_ms,
        "queue_ms": None if found is None else found.mean_queue_ms,
    }


def _version(step: Json, models: Mapping[str, Model]) -> int | None:
    pinned = int(step.get("model_version", 0))
    if pinned > 0:
        return pinned
    called = models.get(step["model_name"])
    return called.versions[-1] if called is not None and called.versions else None


def _edges(config: Json, steps: Iterable[Json]) -> Iterator[tuple[str, str, str]]:
    """Yield each tensor of an ensemble from its writer to each reader."""
    steps = list(steps)
    writers = {tensor["name"]: INPUTS for tensor in config.get("input", ())}
    for place, step in enumerate(steps):
        writers |= dict.fromkeys(step.get("output_map", {}).values(), f"step{place}")
    for place, step in enumerate(steps):
        for tensor in dict.fromkeys(step.get("input_map", {}).values()):
            if tensor in writers:
                yield writers[tensor], f"step{place}", tensor
    for output in config.get("output", ()):
        if output["name"] in writers:
            yield writers[output["name"]], OUTPUTS, output["name"]
