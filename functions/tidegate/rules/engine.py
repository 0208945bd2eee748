"""The engine: first match over a bit index. Standard library alone, no I/O; the clock is only read where a rule has a
time window and the caller gave no time.

Each attribute's value selects a mask of the rows whose conditions hold; the masks are ANDed, and the highest bit left is
the first matching rule. Layers and sticky choices are computed only when a rule that needs them is the first candidate.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from tidegate.errors import BundleError, NoRuleError, UnknownObjectiveError
from tidegate.rules.actions import CallerExperiment, LayerExperiment, Split, first_decision
from tidegate.rules.bundle import UNFIT, Bundle, unpack
from tidegate.rules.contract import Caller, Fleet, Objective, Shard, read_caller
from tidegate.rules.decision import Decision, Explanation, Target
from tidegate.rules.explain import explain
from tidegate.rules.index import ObjectiveIndex, build_index, read_objective

_MOST_OVERRIDDEN = 4096


class Engine:
    """The rules of one bundle, ready to decide. Immutable to its users and safe to share between threads.

    Attributes:
        revision: the bundle's revision; `rules` is the part of it that names the rules, which every decision has.
        objectives: the contract of every objective, by name.
        fleet: shards, placement of models, aliases.
        callers: who may call what, by name; None where the rules say nothing of callers, so that everybody may call.
    """

    def __init__(self, bundle: Bundle, clock: Callable[[], float] = time.time) -> None:
        manifest = bundle.manifest
        self.revision, self.rules = bundle.revision, bundle.rules
        self.fleet = Fleet(
            {
                name: Shard(name, spec["replicas"], spec.get("scale_to_zero", False))
                for name, spec in manifest["fleet"]["shards"].items()
            },
            {name: tuple(shards) for name, shards in manifest["fleet"]["models"].items()},
            dict(manifest["fleet"]["aliases"]),
        )
        self._clock = clock
        self._targets = {
            name: Target(name, model, version, self.fleet.models[model])
            for name, (model, version) in manifest["targets"].items()
        }
        self.callers: Mapping[str, Caller] | None = None
        if "callers" in manifest:
            self.callers = {name: read_caller(name, entry) for name, entry in manifest["callers"].items()}
        self._pinnable = {(target.model, target.version) for target in self._targets.values()}
        self._loaded = _default_versions(self._targets.values())
        self._overridden: dict[tuple[int, str], tuple[Decision, Decision]] = {}
        self._reachable: dict[str, list[str]] = {
            name: entry["targets"] for name, entry in manifest["objectives"].items()
        }
        self._indexes: dict[str, ObjectiveIndex] = {
            name: build_index(
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
                under `allocations` the caller's cells by experiment id. Undeclared names are ignored, unless the objective
                refuses them.
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

    def decisions(self, objective: str) -> Iterator[Decision]:
        """Every decision that the rules of an objective can make, in the order of the rules.

        Raises:
            UnknownObjectiveError: there is no such objective.
        """
        index = self._indexes.get(objective)
        if index is None:
            raise UnknownObjectiveError(objective)
        return index.decisions()

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

    def pin(self, model: str, version: int | None = None) -> Target | None:
        """The target that a caller pins; None where no rule and no caller's grant names the model, as nothing else is
        loaded. Whether the model serves a version that none of them names, only the model knows: see `names`.

        Without a version it is the highest that the bundle names, so that a version which is loaded for another revision
        is not served; where the bundle leaves the model's version open, so does the target."""
        if model not in self._loaded:
            return None
        name = model if version is None else f"{model}/{version}"
        version = self._loaded[model] if version is None else version
        return Target(name, model, version, self.fleet.models[model])

    def names(self, target: Target) -> bool:
        """Whether a rule or a caller's grant names this version of the target's model, so that it is loaded."""
        return target.version is None or (target.model, target.version) in self._pinnable

    def override(self, decision: Decision, target: Target) -> Decision:
        """The decision of the rules with a caller's pinned target in place of its own.

        Rule, parameters and time-outs stay. There are no fallbacks, as another model must not answer in its place, no
        shadows, and no variant or cell, so that an experiment's analysis does not count the request.
        """
        key = (id(decision), target.name)
        kept = self._overridden.get(key)
        if kept is not None and kept[0] is decision:
            return kept[1]
        if len(self._overridden) >= _MOST_OVERRIDDEN:
            self._overridden.clear()
        made = replace(
            decision,
            target=target,
            reason="override",
            variant=None,
            experiment=None,
            cell=None,
            fallbacks=(),
            shadows=(),
        )
        self._overridden[key] = (decision, made)
        return made

    def targets(self, objective: str | None = None) -> tuple[Target, ...]:
        """Every target that the rules can reach, fallbacks and shadows included, sorted by name; for all objectives
        together also those that callers' grants name as overrides.

        Raises:
            UnknownObjectiveError: `objective` is given and there is no such objective.
        """
        if objective is not None and objective not in self._reachable:
            raise UnknownObjectiveError(objective)
        names = self._targets if objective is None else self._reachable[objective]
        return tuple(self._targets[name] for name in sorted(names))


def _default_versions(targets: Iterable[Target]) -> dict[str, int | None]:
    """The highest version that targets name, by model; None for a model that a target leaves open."""
    versions: dict[str, int | None] = {}
    for target in targets:
        known = versions.setdefault(target.model, target.version)
        both = known is not None and target.version is not None
        versions[target.model] = max(known, target.version) if both else None  # type: ignore[type-var]  # neither is None
    return versions


def load_bundle(data: bytes) -> Engine:
    """Load a compiled bundle.

    Raises:
        BundleError: the bytes are no bundle, are damaged, or are of a format version that this code does not read.
    """
    return engine_of(unpack(data))


def engine_of(bundle: Bundle) -> Engine:
    """The engine of a bundle that is taken apart.

    Raises:
        BundleError: its manifest or an index is not what the compiler writes.
    """
    try:
        return Engine(bundle)
    except UNFIT as error:
        raise BundleError(
            "the bundle is damaged: its lines are whole, and its manifest or an index is not what the compiler writes; "
            "compile the rules again with this version"
        ) from error
