"""Why a decision came out as it did: every rule's conditions, looked at one by one.

The conditions are evaluated plainly here, not through the bit index, so that a trace is also a second opinion.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tidegate.rules.conditions import AnyOf, Conjunction, comparable, comparable_operand, from_json, holds
from tidegate.rules.decision import Decision, Draw, Explanation, LayerDraw, RuleTrace
from tidegate.rules.index import ObjectiveIndex
from tidegate.rules.sticky import SEPARATOR, first_number, layer_bucket
from tidegate.rules.times import utc_text
from tidegate.rules.unknown_attributes import unknown_attributes

Failure = tuple[str, str]


def explain(index: ObjectiveIndex, decision: Decision | None, context: Mapping[str, Any], at: float) -> Explanation:
    """The trace of every rule of an objective for a context that `decide` has accepted."""
    layers: dict[str, LayerDraw] = {}
    traces = []
    draws: tuple[Draw, ...] = ()
    for position, rule in enumerate(index.rule_lines()):
        failure = (
            _window(rule, at)
            or _conditions(index, from_json(rule["when"]), context)
            or _experiment(index, rule, context, layers)
        )
        traces.append(RuleTrace(rule["id"], failure is None, *(failure or (None, None))))
        if decision is not None and decision.rule == rule["id"]:
            race = index.race_of(index.action_of_rule(position), context)
            draws = race[0].draws(race[1]) if race else ()
    ignored = unknown_attributes(index.objective, context)
    return Explanation(index.objective.name, decision, tuple(traces), draws, tuple(layers.values()), ignored)


def _window(rule: Mapping[str, Any], at: float) -> Failure | None:
    start, end = rule.get("active", (None, None))
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
    index: ObjectiveIndex, rule: Mapping[str, Any], context: Mapping[str, Any], layers: dict[str, LayerDraw]
) -> Failure | None:
    experiment = rule.get("experiment")
    if experiment is None:
        return None
    name = experiment["id"]
    if experiment["allocate"] == "caller":
        cell = (context.get("allocations") or {}).get(name)
        if cell is None:
            return "experiment", f"the caller's allocations do not name experiment {name}"
        cells = [str(entry["cell"]) for entry in experiment["cells"]]
        if str(cell) not in cells:
            return "experiment", f"the allocated cell of experiment {name} is none of {', '.join(cells)}"
        return None
    layer = experiment["layer"]
    key = index.layer_key(layer, context)
    if key is None:
        return "experiment", f"the key of layer {layer} is absent or empty, so the request is in no experiment of it"
    if layer not in layers:
        layers[layer] = _layer_draw(index, layer, key.decode())
    bucket = layers[layer].bucket
    ranges: list[list[int]] = experiment["ranges"]
    if any(first <= bucket <= last for first, last in ranges):
        return None
    owned = ", ".join(f"{first}–{last}" for first, last in ranges)
    return "experiment", f"bucket {bucket} of layer {layer} is not in the buckets of experiment {name} ({owned})"


def _layer_draw(index: ObjectiveIndex, layer: str, key: str) -> LayerDraw:
    experiments = [rule["experiment"] for rule in index.rule_lines() if "experiment" in rule]
    ranges = {
        experiment["id"]: tuple((first, last) for first, last in experiment["ranges"])
        for experiment in experiments
        if experiment.get("layer") == layer
    }
    hashed = f"{layer}{SEPARATOR}{key}"
    return LayerDraw(layer, hashed, first_number(hashed.encode()), layer_bucket(layer, key), ranges)
