"""The engine: first match over a bit index. Standard library alone, no I/O; the clock is only read where a rule has a
time window and the caller gave no time.

Each attribute's value selects a mask of the rows whose conditions hold; the masks are ANDed, and the highest bit left is
the first matching rule. Layers and sticky choices are computed only when a rule that needs them is the first candidate.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from tidegate.errors import NoRuleError, UnknownObjectiveError
from tidegate.rules.actions import CallerExperiment, LayerExperiment, Split, every_decision
from tidegate.rules.bundle import Bundle, damaged, unpack
from tidegate.rules.bundle.json_values import UNFIT
from tidegate.rules.contract import Objective
from tidegate.rules.decision import Decision, Explanation, Shadow, Target
from tidegate.rules.explain import explain
from tidegate.rules.index import ObjectiveIndex, winner_of
from tidegate.rules.sticky import first_number, is_sampled, shadow_prefix, unit_of_number

_MOST_OVERRIDDEN: Final = 4096


class Engine:
    """The rules of one bundle, ready to decide. Safe to share between threads; nothing that it answers ever changes.

    Equal requests get the same `Decision` object, as each is built once, when a rule first matches, and kept for as long as
    the engine is. So code that derives something from a decision may keep it by the decision's identity, if it also keeps the
    decision. That holds for the decisions of `override` too, until more than 4096 of them were made.

    Every method that takes the name of an objective raises `UnknownObjectiveError` where there is none of that name.

    Attributes:
        bundle: what it was made from.
        revision: the bundle's revision; `rules` is the part of it that names the rules, which every decision has.
        objectives: the contract of every objective, by name.
        fleet: shards, placement of models, aliases.
        callers: who may call what, by name; None where the rules say nothing of callers, so that everybody may call.
    """

    def __init__(self, bundle: Bundle, clock: Callable[[], float] = time.time) -> None:
        manifest = bundle.manifest
        self.bundle = bundle
        self.revision, self.rules = bundle.revision, bundle.rules
        self.fleet, self.callers = manifest.fleet, manifest.callers
        self._clock = clock
        self._targets = {
            name: Target(name, model, version, self.fleet.models[model])
            for name, (model, version) in manifest.targets.items()
        }
        self._pinnable = {(target.model, target.version) for target in self._targets.values()}
        self._loaded = _default_versions(self._targets.values())
        self._overridden: dict[tuple[str, str, int | str | None, Target], Decision] = {}
        self._reachable = {name: entry.targets for name, entry in manifest.objectives.items()}
        self._indexes = {
            name: ObjectiveIndex(entry, bundle, manifest.layers, self._targets.__getitem__)
            for name, entry in manifest.objectives.items()
        }
        self.objectives: Mapping[str, Objective] = {name: entry.contract for name, entry in manifest.objectives.items()}

    def decide(self, objective: str, context: Mapping[str, Any], *, at: float | None = None) -> Decision:
        """Decide what serves a request.

        Args:
            objective: the objective's name.
            context: attribute values by name: text, integers, numbers, booleans, lists of text for `set` attributes;
                under `allocations` the caller's cells by experiment id. Undeclared names are ignored, unless the objective
                refuses them.
            at: the time of the request in Unix seconds, for rules with a time window; None reads the clock.

        Raises:
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
                return winner_of(action.race, index.layer_key(action.layer, context) or b"")
            looked = looked or set()
            looked.add(action.layer)
            mask &= index.layer_mask(action.layer, context)
        raise NoRuleError(objective)

    def sampled(
        self, decision: Decision, context: Mapping[str, Any], chance: Callable[[], float]
    ) -> tuple[Shadow, ...]:
        """Return the shadows of a decision that copy this request.

        A shadow always or never copies the requests of a member, by its sticky key, independently of splits and of other
        shadows. Without a value of the sticky key, each request is sampled by `chance`, random numbers in [0, 1).

        Args:
            decision: what `decide` returned for the context.
            context: the request's context.
            chance: see above.
        """
        if not decision.shadows:
            return ()
        index = self._indexes[decision.objective]
        key = index.key(index.objective.sticky_key, context)
        return tuple(
            [
                shadow
                for shadow in decision.shadows
                if is_sampled(1.0 - chance() if key is None else _shadow_draw(decision, shadow, key), shadow.percent)
            ]
        )

    def explain(self, objective: str, context: Mapping[str, Any], *, at: float | None = None) -> Explanation:
        """Tell for every rule whether its conditions hold, and else which failed first; with the decision.

        Where no rule matches, the explanation's decision is None.

        Raises:
            ContextError: an attribute is missing, of the wrong type or outside its domain.
        """
        at = self._clock() if at is None else at
        try:
            decision = self.decide(objective, context, at=at)
        except NoRuleError:
            decision = None
        return explain(self._indexes[objective], decision, context, at)

    def depends_on(self, objective: str) -> tuple[str, ...]:
        """Return the attributes, sorted, on whose values a decision of an objective can depend; `allocations` where callers
        allocate experiments of it.

        Contexts that agree in them have the same outcome, if they also have the same names, all values have the same types, and what
        either has as `allocations` is the same. Empty: one decision serves them all.
        """
        return self._index(objective).depends_on()

    def changes_after(self, objective: str, at: float) -> float | None:
        """Return the first time after `at`, in Unix seconds, at which the same context may have another outcome, as a rule's
        window begins or ends; None: there is none."""
        return self._index(objective).changes_after(at)

    def decisions(self, objective: str) -> Iterator[Decision]:
        """Return every decision that the rules of an objective can make, in the order of the rules."""
        return self._index(objective).decisions()

    def representative(self, objective: str) -> Decision:
        """Return the decision that represents an objective where there is no context, as for a model's metadata: the first
        target of its last rule."""
        index = self._index(objective)
        return every_decision(index.action(index.count - 1))[0]

    def degraded(self, objective: str) -> Target | None:
        """Return the target that a proxy serves while no resolver answers, or None."""
        name = self._index(objective).objective.degraded
        return None if name is None else self._targets[name]

    def pin(self, model: str, version: int | None = None) -> Target | None:
        """Return the target that a caller pins; None where no rule and no caller's grant names the model, as nothing else is
        loaded. Whether the model serves a version that none of them names, only the model knows: see `names`.

        Without a version it is the highest that the bundle names, so that a version which is loaded for another revision
        is not served; where the bundle leaves the model's version open, so does the target."""
        if model not in self._loaded:
            return None
        name = model if version is None else f"{model}/{version}"
        version = self._loaded[model] if version is None else version
        return Target(name, model, version, self.fleet.models[model])

    def names(self, target: Target) -> bool:
        """Return whether a rule or a caller's grant names this version of the target's model, so that it is loaded."""
        return target.version is None or (target.model, target.version) in self._pinnable

    def override(self, decision: Decision, target: Target) -> Decision:
        """Return the decision of the rules with a caller's pinned target in place of its own.

        Rule, parameters and time-outs stay. There are no fallbacks, as another model must not answer in its place, no
        shadows, no fault, and no variant or cell, so that an experiment's analysis does not count the request.
        """
        # All else that the decisions of an objective differ in is replaced.
        key = (decision.objective, decision.rule, decision.cell, target)
        made = self._overridden.get(key)
        if made is None:
            if len(self._overridden) >= _MOST_OVERRIDDEN:
                self._overridden.clear()
            made = self._overridden[key] = replace(
                decision,
                target=target,
                reason="override",
                variant=None,
                experiment=None,
                cell=None,
                fallbacks=(),
                shadows=(),
                fault=None,
            )
        return made

    def targets(self, objective: str | None = None) -> tuple[Target, ...]:
        """Return every target that the rules can reach, fallbacks, shadows and `degraded` included, sorted by name; for all objectives
        together also those that callers' grants name as overrides."""
        if objective is None:
            names: Iterable[str] = self._targets
        else:
            self._index(objective)
            names = self._reachable[objective]
        return tuple(self._targets[name] for name in sorted(names))

    def _index(self, objective: str) -> ObjectiveIndex:
        index = self._indexes.get(objective)
        if index is None:
            raise UnknownObjectiveError(objective)
        return index


def _default_versions(targets: Iterable[Target]) -> dict[str, int | None]:
    """Return the highest version that targets name, by model; None for a model that a target leaves open."""
    versions: dict[str, int | None] = {}
    for target in targets:
        known = versions.setdefault(target.model, target.version)
        both = known is not None and target.version is not None
        versions[target.model] = max(known, target.version) if both else None  # type: ignore[type-var]  # neither is None
    return versions


def _shadow_draw(decision: Decision, shadow: Shadow, key: bytes) -> float:
    return unit_of_number(first_number(shadow_prefix(decision.objective, decision.rule, shadow.target.name) + key))


def load_bundle(data: bytes) -> Engine:
    """Load a compiled bundle.

    Raises:
        BundleError: the bytes are not a bundle, are damaged, or are of a format version that this code does not read.
    """
    return engine_of(unpack(data))


def engine_of(bundle: Bundle) -> Engine:
    try:
        return Engine(bundle)
    except UNFIT as error:
        raise damaged("the index of an objective", error) from error
