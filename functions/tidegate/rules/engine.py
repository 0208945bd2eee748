"""The engine: first match over a bit index. Standard library alone, no I/O; the clock is only read where a rule has a
time window and the caller gave no time.

Each attribute's value selects a mask of the rows whose conditions hold; the masks are ANDed, and the highest bit left is
the first matching rule. Layers and sticky choices are computed only when a rule that needs them is the first candidate.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from tidegate.errors import BundleError, ContextError, NoRuleError, UnknownObjectiveError
from tidegate.rules.actions import CallerExperiment, LayerExperiment, Split, first_decision
from tidegate.rules.bundle import Bundle, unpack
from tidegate.rules.contract import Fleet, Objective, Shard
from tidegate.rules.decision import Decision, Explanation, Target
from tidegate.rules.explain import explain
from tidegate.rules.index import ObjectiveIndex, read_objective


class Engine:
    """The rules of one bundle, ready to decide. Immutable to its users and safe to share between threads.

    Attributes:
        revision: the bundle's SHA-256 in hexadecimal.
        objectives: the contract of every objective, by name.
        fleet: shards, placement of models, aliases.
    """

    def __init__(self, bundle: Bundle, clock: Callable[[], float] = time.time) -> None:
        manifest = bundle.manifest
        self.revision = bundle.revision
        self.fleet = Fleet(
            {name: Shard(name, spec["replicas"]) for name, spec in manifest["fleet"]["shards"].items()},
            {name: tuple(shards) for name, shards in manifest["fleet"]["models"].items()},
            dict(manifest["fleet"]["aliases"]),
        )
        self._clock = clock
        self._targets = {
            name: Target(name, model, version, self.fleet.models[model])
            for name, (model, version) in manifest["targets"].items()
        }
        self._reachable: dict[str, list[str]] = {
            name: entry["targets"] for name, entry in manifest["objectives"].items()
        }
        self._indexes: dict[str, ObjectiveIndex] = {
            name: ObjectiveIndex(
                read_objective(name, entry), bundle, entry["line"], manifest["layers"], self._targets.__getitem__
            )
            for name, entry in manifest["objectives"].items()
        }
        self.objectives: Mapping[str, Objective] = {name: index.objective for name, index in self._indexes.items()}

    def decide(self, objective: str, context: Mapping[str, Any], *, at: float | None = None) -> Decision:
        """Decide what serves a request.

        Args:
            objective: the objective's name.
            context: attribute values by name: text, integers, numbers, booleans, lists of text for `set` attributes;
                under `allocations` the caller's cells by experiment id. Undeclared names are ignored.
            at: the time of the request in Unix seconds, for rules with a time window; None reads the clock.

        Raises:
            UnknownObjectiveError: there is no such objective.
            ContextError: an attribute is missing, of the wrong type or outside its domain.
            NoRuleError: no rule matches.
        """
        index = self._indexes.get(objective)
        if index is None:
            raise UnknownObjectiveError(objective)
        mask = index.candidates(context, at, self._clock)
        looked: set[str] | None = None
        while mask:
            action = index.action(index.count - mask.bit_length())
            # Comparing classes costs half of what isinstance costs, and this is the hottest line there is.
            if action.__class__ is Decision:
                return action
            if action.__class__ is Split:
                return index.pick(action, context)
            if isinstance(action, CallerExperiment):
                return action.cells[str(context["allocations"][action.experiment])]
            assert isinstance(action, LayerExperiment)
            if looked and action.layer in looked:
                return action.race.pick(index.layer_key(action.layer, context) or b"")
            looked = looked or set()
            looked.add(action.layer)
            mask &= index.layer_mask(action.layer, context)
        raise NoRuleError(objective)

    def explain(self, objective: str, context: Mapping[str, Any], *, at: float | None = None) -> Explanation:
        """Tell for every rule whether its conditions hold, and else which failed first; with the decision.

        Where no rule matches, the explanation's decision is None.

        Raises:
            UnknownObjectiveError: there is no such objective.
            ContextError: an attribute is missing, of the wrong type or outside its domain.
        """
        at = self._clock() if at is None else at
        try:
            decision = self.decide(objective, context, at=at)
        except NoRuleError:
            decision = None
        return explain(self._indexes[objective], decision, context, at)

    def representative(self, objective: str) -> Decision:
        """The decision that stands for an objective where there is no context, as for a model's metadata: the first
        target of its last rule.

        Raises:
            UnknownObjectiveError: there is no such objective.
        """
        index = self._indexes.get(objective)
        if index is None:
            raise UnknownObjectiveError(objective)
        return first_decision(index.action(index.count - 1))

    def targets(self, objective: str | None = None) -> tuple[Target, ...]:
        """Every target that the rules can reach, fallbacks and shadows included, sorted by name.

        Raises:
            UnknownObjectiveError: `objective` is given and there is no such objective.
        """
        if objective is not None and objective not in self._reachable:
            raise UnknownObjectiveError(objective)
        lists = self._reachable.values() if objective is None else [self._reachable[objective]]
        return tuple(self._targets[name] for name in sorted({name for names in lists for name in names}))


def load_bundle(data: bytes) -> Engine:
    """Load a compiled bundle.

    Raises:
        BundleError: the bytes are no bundle, are damaged, or are of a format version that this code does not read.
    """
    bundle = unpack(data)
    try:
        return Engine(bundle)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ContextError) as error:
        raise BundleError(
            f"the bundle is damaged: {type(error).__name__} while reading it; compile it again"
        ) from error
