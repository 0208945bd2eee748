"""Plans: what an endpoint must hold, how the plans of several revisions go together, and how far an endpoint is from one."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.ports import Loaded, ModelLoad, Unit
from tidegate.rules import Target

Plan = tuple[ModelLoad, ...]
"""The models that one endpoint must hold, steps before the ensembles that call them."""

NOTHING: Plan = ()


def units_of(plans: Iterable[Plan]) -> frozenset[Unit]:
    return frozenset((load.model, version) for plan in plans for load in plan for version in (None, *load.versions))


def target_of(model: str, version: int, shard: str) -> Target:
    """Return the target that a version of a model on one shard is."""
    return Target(f"{model}/{version}", model, version, (shard,))


def merge(plans: Iterable[Plan]) -> tuple[Plan, tuple[str, ...]]:
    """Return one plan that serves what each of `plans` does, and the models where that is impossible.

    The versions of a model are united. A model of which two plans have different configs can be loaded in one way only:
    the first plan's counts, and its name is returned, too.
    """
    merged: dict[str, ModelLoad] = {}
    conflicts: dict[str, None] = {}
    for plan in plans:
        for load in plan:
            known = merged.setdefault(load.model, load)
            if known is load or known == load:
                continue
            if not same_but_versions(known, load):
                conflicts[load.model] = None
            elif not set(load.versions) <= set(known.versions):
                merged[load.model] = with_versions(known, {*known.versions, *load.versions})
    return tuple(merged.values()), tuple(conflicts)


def with_versions(load: ModelLoad, versions: Iterable[int]) -> ModelLoad:
    """Return the same load with exactly these versions.

    Raises:
        ValueError: the load has no config, so that the model's own says which versions are served.
    """
    wanted = tuple(sorted(versions))
    if wanted == load.versions:
        return load
    if load.config is None:
        raise ValueError(f"the load of {load.model!r} has no config to name versions in")
    config = json.loads(load.config) | {"version_policy": {"specific": {"versions": wanted}}}
    return ModelLoad(load.model, wanted, json.dumps(config, sort_keys=True), load.steps)


@dataclass(frozen=True, slots=True)
class Difference:
    """The difference between an endpoint and a plan.

    Attributes:
        missing: loads of which a version is not READY, steps first.
        wider: loads that are READY in all their versions, and in others that are not needed.
        surplus: models that the plan does not have, ensembles before their steps as far as these are known.
    """

    missing: Plan = ()
    wider: Plan = ()
    surplus: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.missing or self.wider or self.surplus)


def difference(
    needed: Plan, loaded: Loaded, steps: Mapping[str, Sequence[str]], allowed: Plan | None = None
) -> Difference:
    """Compare the plan `needed` with what is loaded.

    Args:
        steps: the steps of models that are in no plan any more.
        allowed: what may be loaded, `needed` included; None: nothing else.
    """
    missing: list[ModelLoad] = []
    wider: list[ModelLoad] = []
    wanted = {load.model: load for load in needed}
    for load in needed if allowed is None else allowed:
        must = wanted[load.model].versions if load.model in wanted else ()
        have = loaded.get(load.model, frozenset())
        # What may stay is neither loaded nor unloaded.
        kept = {*must, *have.intersection(load.versions)}
        if not have.issuperset(must):
            missing.append(with_versions(wanted[load.model], kept))
        elif kept and len(have) > len(kept):
            wider.append(with_versions(load, kept))
    surplus = loaded.keys() - {load.model for load in (needed if allowed is None else allowed)}
    return Difference(tuple(missing), tuple(wider), _callers_first(surplus, steps))


def _callers_first(models: Iterable[str], steps: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """Sort models so that each comes before the steps that it calls."""
    wanted = set(models)
    ordered: dict[str, None] = {}

    def visit(model: str) -> None:
        if model in wanted and model not in ordered:
            wanted.discard(model)
            for step in steps.get(model, ()):
                visit(step)
            ordered[model] = None

    for model in sorted(wanted):
        visit(model)
    return tuple(reversed(ordered))


def closures(plan: Plan, models: Mapping[str, ModelLoad]) -> Plan:
    """Return the loads of some models of a plan, and of what they call in the versions that they call, steps first."""
    versions: dict[str, set[int]] = {name: set(load.versions) for name, load in models.items()}
    found: list[ModelLoad] = []
    for load in reversed(plan):
        if load.model in versions:
            whole = with_versions(load, versions[load.model] or load.versions)
            found.append(whole)
            for step, version in called_by(whole):
                # One that is left open is any of those that the plan has.
                versions.setdefault(step, set()).update({version} if version > 0 else ())
    return tuple(reversed(found))


def same_but_versions(one: ModelLoad, other: ModelLoad) -> bool:
    """Return whether two loads of a model can be one that serves the versions of both.

    The config of what was live never changes, and of what was not one is loaded, so the versions of its steps are all
    that two configs of one model can differ in.
    """
    if one.config is None or other.config is None:
        return one == other
    return one.config == other.config or _step_versions(one.config) == _step_versions(other.config)


def called_by(load: ModelLoad) -> tuple[tuple[str, int], ...]:
    """Return the models that an ensemble calls itself, with the version of each (0 or less: any)."""
    return tuple((step, 0) for step in load.steps) if load.config is None else _step_versions(load.config)


@functools.lru_cache(maxsize=1 << 15)
def _step_versions(config: str) -> tuple[tuple[str, int], ...]:
    content: dict[str, Any] = json.loads(config)
    steps = content.get("ensemble_scheduling", {}).get("step", ())
    return tuple((step["model_name"], int(step.get("model_version", 0))) for step in steps)
