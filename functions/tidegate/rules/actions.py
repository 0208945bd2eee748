"""The action of a matching rule, ready to run: a fixed decision, a split, or an experiment.

Every decision that a rule can make is built once, when the rule first matches, and shared from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from math import log
from types import MappingProxyType
from typing import NamedTuple

from tidegate.rules.bundle.rule import Rule
from tidegate.rules.decision import NO_PARAMETERS, Decision, Draw, Shadow, Target
from tidegate.rules.sticky import choose, first_number, prefix, unit_of_number

Resolve = Callable[[str], Target]


class Race(NamedTuple):
    """A weighted sticky choice between decisions: (prefix, weight) of each variant, and its decision."""

    variants: tuple[tuple[bytes, int], ...]
    decisions: tuple[Decision, ...]

    def draws(self, key: bytes) -> tuple[Draw, ...]:
        """Return the arithmetic of the choice."""
        made = []
        winner = choose(self.variants, key)
        for index, ((before, weight), decision) in enumerate(zip(self.variants, self.decisions, strict=True)):
            hashed = before + key
            number = first_number(hashed)
            u = unit_of_number(number)
            score = -log(u) / weight if weight else None
            made.append(Draw(decision.variant or "", weight, u, score, hashed.decode(), number, index == winner))
        return tuple(made)


class Split(NamedTuple):
    """A rule's split: a race by the objective's sticky key, and the decision where that key is absent."""

    race: Race
    keyless: Decision


class LayerExperiment(NamedTuple):
    """An experiment that owns buckets of a layer; its cell is a race by the layer's key."""

    experiment: str
    layer: str
    race: Race


class CallerExperiment(NamedTuple):
    """An experiment whose cell the caller's allocations give: a decision per cell, by the cell's text."""

    experiment: str
    cells: Mapping[str, Decision]


Action = Decision | Split | LayerExperiment | CallerExperiment


def build_action(objective: str, revision: str, rule: Rule, resolve: Resolve) -> Action:
    """Build the action of a rule of an objective. `resolve` gives the target of a name as the author wrote it."""
    parameters = MappingProxyType(rule.parameters) if rule.parameters else NO_PARAMETERS
    model = Decision(
        objective,
        rule.id,
        resolve(next(rule.served())),
        "serve",
        revision,
        parameters=parameters,
        fallbacks=tuple(map(resolve, rule.fallback)),
        shadows=tuple(Shadow(resolve(name), percent) for name, percent in rule.shadow),
        timeout_ms=rule.timeout_ms,
        hedge_after_ms=rule.hedge_after_ms,
        hedge_at=rule.hedge_at,
        fault=rule.fault,
    )
    if rule.split is not None:
        decisions = tuple(replace(model, target=resolve(name), reason="split", variant=name) for name, _ in rule.split)
        salt = f"{objective}/{rule.id}"
        variants = tuple((prefix(salt, name), weight) for name, weight in rule.split)
        return Split(Race(variants, decisions), replace(decisions[0], reason="no_sticky_key"))
    experiment = rule.experiment
    if experiment is None:
        return model
    decisions = tuple(
        replace(
            model,
            target=resolve(cell.serve),
            reason="experiment",
            experiment=experiment.id,
            cell=cell.cell,
            variant=str(cell.cell),
            parameters=MappingProxyType({**parameters, **cell.parameters}),
        )
        for cell in experiment.cells
    )
    if experiment.layer is None:
        return CallerExperiment(experiment.id, {str(decision.cell): decision for decision in decisions})
    variants = tuple((prefix(experiment.id, str(cell.cell)), cell.weight) for cell in experiment.cells)
    return LayerExperiment(experiment.id, experiment.layer, Race(variants, decisions))


def every_decision(action: Action) -> tuple[Decision, ...]:
    """Return the decisions of an action's variants; where the sticky key is absent, one of them is made too."""
    match action:
        case Decision():
            return (action,)
        case CallerExperiment():
            return tuple(action.cells.values())
        case Split() | LayerExperiment():
            return action.race.decisions
