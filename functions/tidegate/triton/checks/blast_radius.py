"""What a change of a model touches: ensembles that call it, and objectives that these serve."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tidegate.triton.checks.folder import Repository


@dataclass(frozen=True, slots=True)
class BlastRadius:
    """The ensembles that call a model, directly or through others, and the objectives that serve it or one of them."""

    model: str
    ensembles: tuple[str, ...]
    objectives: tuple[str, ...]


def blast_radius(
    repository: Repository, models: Iterable[str], objectives: Mapping[str, frozenset[str]]
) -> tuple[BlastRadius, ...]:
    """What a change of each model touches.

    Args:
        repository: the whole repository: an ensemble that is not among `models` may call one of them.
        models: the models to tell it of.
        objectives: the objectives that serve each model by a rule.
    """
    callers: dict[str, set[str]] = {}
    for name in repository.names():
        for step in repository.steps(name):
            callers.setdefault(step, set()).add(name)
    found = []
    for model in models:
        ensembles = _above(model, callers)
        served = [objectives.get(name, frozenset()) for name in (model, *ensembles)]
        found.append(BlastRadius(model, tuple(sorted(ensembles)), tuple(sorted(frozenset().union(*served)))))
    return tuple(found)


def _above(model: str, callers: Mapping[str, set[str]]) -> set[str]:
    pending, found = [model], set[str]()
    while pending:
        for caller in callers.get(pending.pop(), ()):
            if caller not in found and caller != model:
                found.add(caller)
                pending.append(caller)
    return found
