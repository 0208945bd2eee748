"""A bundle opened for comparison: each objective's contract, its rules as the bundle has them, and what they do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tidegate.rules.actions import Action, build_action
from tidegate.rules.bundle import Bundle, unpack
from tidegate.rules.compare.records import check_records
from tidegate.rules.contract import Objective
from tidegate.rules.decision import Target
from tidegate.rules.engine import Engine, engine_of
from tidegate.rules.index import read_objective


class Side:
    """One revision of one objective.

    Attributes:
        objective: its contract.
        rules: each rule's line of the bundle, decoded, in order.
        layer_keys: the key's attributes of each layer that its rules use.
        targets: what every target's name stands for in this revision.
    """

    def __init__(self, name: str, bundle: Bundle, targets: Mapping[str, Target], rules: list[dict[str, Any]]) -> None:
        entry = bundle.manifest["objectives"][name]
        self.objective: Objective = read_objective(name, entry)
        self.rules = rules
        self.targets = targets
        self.layer_keys: dict[str, tuple[str, ...]] = {
            layer: tuple(bundle.manifest["layers"][layer]["key"])
            for layer in sorted({experiment["layer"] for experiment in _experiments(self.rules)})
        }
        self._revision = bundle.rules
        self._actions: dict[int, Action] = {}

    def action(self, rule: int) -> Action:
        """What a rule does, by its place."""
        if rule not in self._actions:
            name = self.objective.name
            self._actions[rule] = build_action(name, self._revision, self.rules[rule], self.targets.__getitem__)
        return self._actions[rule]

    def key_of(self, rule: int) -> tuple[str, ...]:
        """The attributes of which the first present is hashed by a rule's choice; none where it hashes nothing."""
        body = self.rules[rule]
        if "split" in body:
            return self.objective.sticky_key
        experiment = body.get("experiment", {})
        return self.layer_keys[experiment["layer"]] if experiment.get("allocate") == "layer" else ()


def _experiments(rules: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = [rule["experiment"] for rule in rules if "experiment" in rule]
    return [experiment for experiment in found if experiment["allocate"] == "layer"]


def _rule_lines(bundle: Bundle, objective: str) -> list[dict[str, Any]]:
    line: int = bundle.manifest["objectives"][objective]["line"]
    count: int = json.loads(bundle.lines[line])["rules"]
    return [json.loads(each) for each in bundle.lines[line + 1 : line + 1 + count]]


@dataclass(frozen=True, slots=True)
class Revision:
    """A bundle opened for comparison. `targets` resolves every target's name, `engine` what decides by it."""

    bundle: Bundle
    engine: Engine
    targets: Mapping[str, Target]
    _rules: dict[str, list[dict[str, Any]]] = field(default_factory=dict, compare=False, repr=False)

    def rule_lines(self, objective: str) -> list[dict[str, Any]]:
        """Every rule of an objective as the bundle has it, in order; decoded once."""
        if objective not in self._rules:
            self._rules[objective] = _rule_lines(self.bundle, objective)
        return self._rules[objective]

    @property
    def manifest(self) -> Mapping[str, Any]:
        """The bundle's manifest."""
        return self.bundle.manifest

    @property
    def objectives(self) -> list[str]:
        """The names of its objectives, sorted."""
        return sorted(self.bundle.manifest["objectives"])

    def side(self, objective: str) -> Side:
        """One objective, opened."""
        return Side(objective, self.bundle, self.targets, self.rule_lines(objective))


def open_revision(data: bytes) -> Revision:
    """Open a compiled bundle for comparison.

    Raises:
        BundleError: the bytes are no bundle, are damaged, were written by something else than the compiler, or are of
            another format version.
    """
    bundle = unpack(data)
    check_records(bundle)
    models = bundle.manifest["fleet"]["models"]
    targets = {
        name: Target(name, model, version, tuple(models[model]))
        for name, (model, version) in bundle.manifest["targets"].items()
    }
    return Revision(bundle, engine_of(bundle), targets)
