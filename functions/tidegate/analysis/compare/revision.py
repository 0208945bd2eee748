"""A bundle opened for comparison: each objective's contract, its rules, and their actions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tidegate.language.program import Layer, ObjectiveProgram, Program, World
from tidegate.rules.actions import Action, build_action
from tidegate.rules.bundle import Bundle, damaged, unpack
from tidegate.rules.bundle.json_values import UNFIT, UnfitError
from tidegate.rules.bundle.manifest import Manifest
from tidegate.rules.bundle.rule import Rule, decode_rule
from tidegate.rules.conditions import AFFIX, OPERATORS, ORDERED, AnyOf, Conjunction, Predicate
from tidegate.rules.contract import Attribute, AttributeType, Objective
from tidegate.rules.decision import Target
from tidegate.rules.engine import Engine, engine_of
from tidegate.rules.values import accepts


class Side:
    """One revision of one objective.

    `layer_keys` has the key's attributes of each layer that its rules use, `targets` resolves every target's name.
    """

    def __init__(self, name: str, bundle: Bundle, targets: Mapping[str, Target], rules: Sequence[Rule]) -> None:
        self.objective = bundle.manifest.objectives[name].contract
        self.rules = rules
        self.targets = targets
        used = {each.layer for rule in rules if (each := rule.experiment_of("layer"))}
        self.layer_keys = {layer: key for layer, key in sorted(bundle.manifest.layers.items()) if layer in used}
        self._revision = bundle.rules
        self._actions: dict[int, Action] = {}

    def action(self, rule: int) -> Action:
        if rule not in self._actions:
            name = self.objective.name
            self._actions[rule] = build_action(name, self._revision, self.rules[rule], self.targets.__getitem__)
        return self._actions[rule]

    def key_of(self, rule: int) -> tuple[str, ...]:
        """Return the attributes of which a rule's choice hashes the first present one; empty if it hashes nothing."""
        if self.rules[rule].split is not None:
            return self.objective.sticky_key
        experiment = self.rules[rule].experiment
        return () if experiment is None or experiment.layer is None else self.layer_keys[experiment.layer]


@dataclass(frozen=True, slots=True)
class Revision:
    """A bundle opened for comparison. `targets` resolves every target's name, `engine` what decides by it, and `rules` has
    the rules of each objective, in order."""

    bundle: Bundle
    engine: Engine
    targets: Mapping[str, Target]
    rules: Mapping[str, Sequence[Rule]]

    @property
    def manifest(self) -> Manifest:
        return self.bundle.manifest

    @property
    def objectives(self) -> list[str]:
        return sorted(self.rules)

    def side(self, objective: str) -> Side:
        return Side(objective, self.bundle, self.targets, self.rules[objective])


def open_revision(data: bytes) -> Revision:
    """Open a compiled bundle for comparison.

    Raises:
        BundleError: the bytes are not a bundle that this version's compiler wrote.
    """
    bundle = unpack(data)
    rules = _read_rules(bundle)
    engine = engine_of(bundle)
    return Revision(bundle, engine, {target.name: target for target in engine.targets()}, rules)


def decompiled(revision: Revision) -> Program:
    """Return the program that an opened bundle was compiled from.

    A bundle has neither the files' lines nor the holdouts of layers: these are missing here.
    """
    manifest = revision.manifest
    objectives = [
        ObjectiveProgram(manifest.objectives[name].contract, tuple(revision.rules[name]))
        for name in revision.objectives
    ]
    experiments = [each for rules in revision.rules.values() for rule in rules if (each := rule.experiment_of("layer"))]
    layers = {
        name: Layer(key, (), {each.id: each.ranges for each in experiments if each.layer == name})
        for name, key in manifest.layers.items()
    }
    return Program(World(manifest.fleet, layers), tuple(objectives), manifest.callers)


def _read_rules(bundle: Bundle) -> dict[str, tuple[Rule, ...]]:
    """Return the rules of every objective, in order, and check what they refer to.

    The checksum shows damage, and a decoder a line of another form; this finds a bundle that is whole and that something
    else than the compiler wrote. A gateway does not need it: it decodes a rule when the rule first matches.

    Raises:
        BundleError: the manifest or a rule is not what the compiler writes; the message says which, and what of it.
    """
    found = {}
    place = "the manifest"
    try:
        for name, entry in bundle.manifest.objectives.items():
            place = "the manifest"
            for attribute in entry.contract.attributes.values():
                _check_attribute(attribute)
            place = f"the index of objective {name!r}"
            lines = bundle.rule_lines(entry, bundle.tables(entry).rules)
            rules = []
            for number, line in enumerate(lines, 1):
                place = f"rule {number} of objective {name!r}"
                rules.append(decode_rule(line))
                _check_rule(rules[-1], entry.contract, bundle.manifest)
            found[name] = tuple(rules)
    except UNFIT as error:
        raise damaged(place, error) from error
    return found


def _check_attribute(attribute: Attribute) -> None:
    element: AttributeType = "string" if attribute.type == "set" else attribute.type
    _require(all(accepts(element, value) for value in attribute.values or ()), "a value does not fit its attribute")
    is_sound = attribute.default is None or accepts(attribute.type, attribute.default)
    _require(is_sound, "a default does not fit its attribute")


def _check_rule(rule: Rule, objective: Objective, manifest: Manifest) -> None:
    _require(all(name in manifest.targets for name in rule.targets()), "it has a target that the manifest lacks")
    if rule.split is not None:
        declared = all(name in objective.attributes for name in objective.sticky_key)
        _require(declared, "its sticky key is not declared")
    if rule.experiment is not None and rule.experiment.layer is not None:
        key = manifest.layers.get(rule.experiment.layer)
        _require(key is not None, "its layer is not declared")
        _require(all(name in objective.attributes for name in key or ()), "its layer's key is not declared")
    for term in predicates(rule.when):
        _check_term(term, objective)


def _check_term(term: Predicate, objective: Objective) -> None:
    _require(term.attribute in objective.attributes, "a condition is on an attribute that is not declared")
    kind = objective.attributes[term.attribute].type
    _require(term.operator in OPERATORS[kind], "an operator does not fit its attribute")
    if term.operator != "present":
        element: AttributeType = "string" if kind == "set" or term.operator in AFFIX else kind
        values = (term.operand,) if term.operator in ORDERED else term.operand
        _require(all(accepts(element, value) for value in values), "an operand does not fit its attribute")


def _require(holds: bool, reason: str) -> None:
    if not holds:
        raise UnfitError(reason)


def predicates(conjunction: Conjunction) -> Iterator[Predicate]:
    """Yield every predicate of a conjunction, those of its alternatives included."""
    for term in conjunction:
        if isinstance(term, AnyOf):
            for alternative in term.alternatives:
                yield from predicates(alternative)
        else:
            yield term
