"""Explains a decision: whether the conditions of each rule hold.

The conditions are evaluated directly, not with the bit index, so that a trace also checks the index.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tidegate.rules.bundle.rule import Experiment, Rule, Window
from tidegate.rules.conditions import AnyOf, Conjunction, comparable, comparable_operand, holds
from tidegate.rules.decision import Decision, Draw, Explanation, LayerDraw, RuleTrace, ShadowDraw
from tidegate.rules.index import ObjectiveIndex
from tidegate.rules.sticky import SEPARATOR, first_number, is_sampled, layer_bucket, shadow_prefix, unit_of_number
from tidegate.rules.times import utc_text
from tidegate.rules.unknown_attributes import unknown_attributes

Failure = tuple[str, str]


def explain(index: ObjectiveIndex, decision: Decision | None, context: Mapping[str, Any], at: float) -> Explanation:
    """Trace every rule of an objective for a context that `decide` has accepted."""
    layers: dict[str, LayerDraw] = {}
    traces = []
    draws: tuple[Draw, ...] = ()
    rules = index.rules()
    for position, rule in enumerate(rules):
        failure = (
            _window(rule.active, at)
            or _conditions(index, rule.when, context)
            or (rule.experiment and _experiment(index, rules, rule.experiment, context, layers))
        )
        traces.append(RuleTrace(rule.id, failure is None, *(failure or (None, None))))
        if decision is not None and decision.rule == rule.id:
            race = index.race_of(index.action_of_rule(position), context)
            draws = race[0].draws(race[1]) if race else ()
    ignored = unknown_attributes(index.objective, context)
    shadows = () if decision is None else tuple(_shadow_draws(index, decision, context))
    return Explanation(index.objective.name, decision, tuple(traces), draws, tuple(layers.values()), ignored, shadows)


def _shadow_draws(index: ObjectiveIndex, decision: Decision, context: Mapping[str, Any]) -> Iterator[ShadowDraw]:
    key = index.key(index.objective.sticky_key, context)
    for shadow in decision.shadows:
        target, percent = shadow.target.name, shadow.percent
        if key is None:
            yield ShadowDraw(target, percent)
            continue
        hashed = shadow_prefix(decision.objective, decision.rule, target) + key
        number = first_number(hashed)
        u = unit_of_number(number)
        yield ShadowDraw(target, percent, u, hashed.decode(), number, is_sampled(u, percent))


def _window(active: Window | None, at: float) -> Failure | None:
    start, end = active or (None, None)
    if start is not None and at < start:
        return "active", f"the rule is active from {utc_text(start)}"
    if end is not None and at >= end:
        return "active", f"the rule was active until {utc_text(end)}"
    return None


def _conditions(index: ObjectiveIndex, conjunction: Conjunction, context: Mapping[str, Any]) -> Failure | None:
    for term in conjunction:
        if isinstance(term, AnyOf):
            failures = [_conditions(index, alternative, context) for alternative in term.alternatives]
            if all(failures):
                reasons = "; ".join(f"{failure[0]} {failure[1]}" for failure in failures if failure)
                return "any_of", f"no alternative holds: {reasons}"
            continue
        attribute = index.objective.attributes[term.attribute]
        value = context.get(term.attribute, attribute.default)
        if term.operator == "present" and not term.operand:
            held = value is None
        elif value is None:
            return term.attribute, f"{term.words()}, and it is absent"
        else:
            operand = comparable_operand(attribute.type, term)
            held = holds(term.operator, operand, comparable(attribute.type, value))
        if not held:
            return term.attribute, term.words()
    return None


def _experiment(
    index: ObjectiveIndex,
    rules: Sequence[Rule],
    experiment: Experiment,
    context: Mapping[str, Any],
    layers: dict[str, LayerDraw],
) -> Failure | None:
    layer = experiment.layer
    if layer is None:
        cell = (context.get("allocations") or {}).get(experiment.id)
        if cell is None:
            return "experiment", f"the caller's allocations do not name experiment {experiment.id}"
        cells = [str(each.cell) for each in experiment.cells]
        if str(cell) not in cells:
            return "experiment", f"the allocated cell of experiment {experiment.id} is none of {', '.join(cells)}"
        return None
    key = index.layer_key(layer, context)
    if key is None:
        return "experiment", f"the key of layer {layer} is absent or empty, so the request is in no experiment of it"
    if layer not in layers:
        layers[layer] = _layer_draw(rules, layer, key.decode())
    bucket = layers[layer].bucket
    if any(first <= bucket <= last for first, last in experiment.ranges):
        return None
    owned = ", ".join(f"{first}–{last}" for first, last in experiment.ranges)
    what = f"bucket {bucket} of layer {layer} is not in the buckets of experiment {experiment.id} ({owned})"
    return "experiment", what


def _layer_draw(rules: Sequence[Rule], layer: str, key: str) -> LayerDraw:
    experiments = [rule.experiment for rule in rules if rule.experiment is not None]
    ranges = {experiment.id: experiment.ranges for experiment in experiments if experiment.layer == layer}
    hashed = f"{layer}{SEPARATOR}{key}"
    return LayerDraw(layer, hashed, first_number(hashed.encode()), layer_bucket(layer, key), ranges)
