"""What a matching rule does, ready to run: a fixed decision, a split, or an experiment.

Every decision that a rule can make is built once, when the rule first matches, and shared from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import log
from types import MappingProxyType
from typing import Any

from tidegate.rules.decision import Decision, Draw, Shadow, Target
from tidegate.rules.sticky import choose, first_number, prefix, unit_of_number

Resolve = Callable[[str], Target]


@dataclass(frozen=True, slots=True)
class Race:
    """A weighted sticky choice between decisions: (prefix, weight) of each variant, and the decision that it stands for."""

    variants: tuple[tuple[bytes, int], ...]
    decisions: tuple[Decision, ...]

    def pick(self, key: bytes) -> Decision:
        """The decision that wins for `key`."""
        return self.decisions[choose(self.variants, key)]

    def draws(self, key: bytes) -> tuple[Draw, ...]:
        """The arithmetic of `pick`."""
        made = []
        winner = choose(self.variants, key)
        for index, ((before, weight), decision) in enumerate(zip(self.variants, self.decisions, strict=True)):
            hashed = before + key
            number = first_number(hashed)
            u = unit_of_number(number)
            score = -log(u) / weight if weight else None
            made.append(Draw(decision.variant or "", weight, u, score, hashed.decode(), number, index == winner))
        return tuple(made)


@dataclass(frozen=True, slots=True)
class Split:
    """A rule's split: a race by the objective's sticky key, and the decision where that key is absent."""

    race: Race
    keyless: Decision


@dataclass(frozen=True, slots=True)
class LayerExperiment:
    """An experiment that owns buckets of a layer; its cell is a race by the layer's key."""

    experiment: str
    layer: str
    race: Race


@dataclass(frozen=True, slots=True)
class CallerExperiment:
    """An experiment whose cell the caller's allocations give: a decision per cell, by the cell's text."""

    experiment: str
    cells: Mapping[str, Decision]


Action = Decision | Split | LayerExperiment | CallerExperiment


def build_action(objective: str, revision: str, rule: Mapping[str, Any], resolve: Resolve) -> Action:
    """The action of one rule of a bundle.

    Args:
        objective: its objective's name.
        revision: the bundle's revision.
        rule: the rule's line of the bundle, decoded.
        resolve: gives the target of a name as the author wrote it.
    """
    common: dict[str, Any] = {
        "objective": objective,
        "rule": rule["id"],
        "revision": revision,
        "fallbacks": tuple(resolve(name) for name in rule.get("fallback", ())),
        "shadows": tuple(Shadow(resolve(name), percent) for name, percent in rule.get("shadow", ())),
        "timeout_ms": rule.get("timeout_ms"),
        "hedge_after_ms": rule.get("hedge_after_ms"),
    }
    parameters: dict[str, Any] = rule.get("parameters", {})
    frozen = MappingProxyType(parameters)
    if "serve" in rule:
        return Decision(target=resolve(rule["serve"]), reason="serve", parameters=frozen, **common)
    if "split" in rule:
        decisions = tuple(
            Decision(target=resolve(name), reason="split", variant=name, parameters=frozen, **common)
            for name, _ in rule["split"]
        )
        first = decisions[0]
        keyless = Decision(
            target=first.target, reason="no_sticky_key", variant=first.variant, parameters=frozen, **common
        )
        salt = f"{objective}/{rule['id']}"
        return Split(Race(tuple((prefix(salt, name), weight) for name, weight in rule["split"]), decisions), keyless)
    experiment = rule["experiment"]
    cells = [
        (
            Decision(
                target=resolve(cell["serve"]),
                reason="experiment",
                experiment=experiment["id"],
                cell=cell["cell"],
                variant=str(cell["cell"]),
                parameters=MappingProxyType({**parameters, **cell.get("parameters", {})}),
                **common,
            ),
            cell["weight"],
        )
        for cell in experiment["cells"]
    ]
    if experiment["allocate"] == "caller":
        return CallerExperiment(experiment["id"], {str(decision.cell): decision for decision, _ in cells})
    variants = tuple((prefix(experiment["id"], str(decision.cell)), weight) for decision, weight in cells)
    race = Race(variants, tuple(decision for decision, _ in cells))
    return LayerExperiment(experiment["id"], experiment["layer"], race)


def every_decision(action: Action) -> tuple[Decision, ...]:
    """The decisions of an action's variants; where the sticky key is absent, one of them is made too."""
    match action:
        case Decision():
            return (action,)
        case CallerExperiment():
            return tuple(action.cells.values())
        case Split() | LayerExperiment():
            return action.race.decisions


def first_decision(action: Action) -> Decision:
    """The decision of an action's first variant."""
    match action:
        case Decision():
            return action
        case Split():
            return action.race.decisions[0]
        case LayerExperiment():
            return action.race.decisions[0]
        case CallerExperiment():
            return next(iter(action.cells.values()))
