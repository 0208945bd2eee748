"""Checks that a bundle holds what the compiler writes, before it is taken apart for a comparison.

The checksum tells damage; this tells a bundle that is whole and that something else wrote. A gateway does not need it: it
decodes a rule when the rule first matches, and refuses one that it cannot build.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tidegate.errors import BundleError
from tidegate.rules.bundle import Bundle
from tidegate.rules.conditions import AFFIX, OPERATORS, ORDERED
from tidegate.rules.contract import AttributeType
from tidegate.rules.semantics import body_targets
from tidegate.rules.values import accepts

Scalar = str | bool | int | float
Parameters = dict[str, Scalar]


class _Record(BaseModel):
    # Keys that are not read here are not compared either.
    model_config = ConfigDict(extra="ignore", strict=True, hide_input_in_errors=True)


class _Attribute(_Record):
    type: AttributeType
    required: bool = False
    values: list[Scalar] | None = None
    default: Scalar | list[str] | None = None
    header: str | None = None


class _Objective(_Record):
    summary: str
    owner: str
    context: dict[str, _Attribute]
    sticky_key: list[str]
    timeout_ms: int | None
    allocations: list[str]
    targets: list[str]
    unknown_attributes: Literal["refuse"] | None = None
    line: int = Field(ge=2)


class _Shard(_Record):
    replicas: int = Field(ge=1)
    scale_to_zero: bool = False


class _Fleet(_Record):
    shards: dict[str, _Shard]
    models: dict[str, list[str]]
    aliases: dict[str, str]


class _Layer(_Record):
    key: list[str]


class _Manifest(_Record):
    fleet: _Fleet
    layers: dict[str, _Layer]
    targets: dict[str, tuple[str, int | None]]
    objectives: dict[str, _Objective]


class _Cell(_Record):
    cell: int | str
    serve: str
    weight: int = Field(ge=0)
    parameters: Parameters = {}


class _Experiment(_Record):
    id: str
    allocate: Literal["layer", "caller"]
    cells: list[_Cell] = Field(min_length=1)
    layer: str | None = None
    ranges: list[tuple[int, int]] | None = None


class _Rule(_Record):
    id: str
    when: list[Any]
    active: tuple[float | None, float | None] | None = None
    serve: str | None = None
    split: list[tuple[str, int]] | None = None
    experiment: _Experiment | None = None
    shadow: list[tuple[str, float]] = []
    fallback: list[str] = []
    parameters: Parameters = {}
    timeout_ms: int | None = None
    hedge_after_ms: int | None = None


def check_records(bundle: Bundle) -> None:
    """Check the manifest of a bundle and all its rules.

    Raises:
        BundleError: one of them is not what the compiler writes; the message says which and where in it.
    """
    place = "the manifest"
    try:
        manifest = _Manifest.model_validate_json(json.dumps(bundle.manifest))
        _require(
            all(model in manifest.fleet.models for model, _ in manifest.targets.values()),
            "a target's model is not in the fleet",
        )
        for name, objective in manifest.objectives.items():
            for attribute in objective.context.values():
                _check_attribute(attribute)
            place = f"the index of objective {name!r}"
            count = json.loads(bundle.lines[objective.line])["rules"]
            lines = bundle.lines[objective.line + 1 : objective.line + 1 + count]
            _require(len(lines) == count, "rules are missing")
            for number, line in enumerate(lines, 1):
                place = f"rule {number} of objective {name!r}"
                _check_rule(_Rule.model_validate_json(line), json.loads(line), objective, manifest)
    except ValidationError as error:
        detail = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(map(str, detail["loc"]))
        raise _damaged(place, f"{where}: {detail['msg']}" if where else detail["msg"]) from error
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise _damaged(place, str(error) if type(error) is ValueError else "it lacks what it needs") from error


def _damaged(place: str, reason: str) -> BundleError:
    return BundleError(f"the bundle is damaged: {place} is not what the compiler writes: {reason}; compile it again")


def _check_attribute(attribute: _Attribute) -> None:
    element: AttributeType = "string" if attribute.type == "set" else attribute.type
    _require(all(accepts(element, value) for value in attribute.values or ()), "a value does not fit its attribute")
    is_sound = attribute.default is None or accepts(attribute.type, attribute.default)
    _require(is_sound, "a default does not fit its attribute")


def _check_rule(rule: _Rule, body: Mapping[str, Any], objective: _Objective, manifest: _Manifest) -> None:
    actions = [each for each in (rule.serve, rule.split, rule.experiment) if each is not None]
    _require(len(actions) == 1, "it does not have one action")
    _require(all(name in manifest.targets for name in body_targets(body)), "it has a target that the manifest lacks")
    if rule.split is not None:
        weights = [weight for _, weight in rule.split]
        _require(bool(weights) and min(weights) >= 0 and sum(weights) > 0, "its weights are not of a split")
        _require(all(name in objective.context for name in objective.sticky_key), "its sticky key is not declared")
    if rule.experiment is not None:
        _require(sum(cell.weight for cell in rule.experiment.cells) > 0, "the weights of its cells sum to 0")
        if rule.experiment.allocate == "layer":
            layer = manifest.layers.get(rule.experiment.layer or "")
            _require(layer is not None and rule.experiment.ranges is not None, "its layer is not declared")
            keys = () if layer is None else layer.key
            _require(all(name in objective.context for name in keys), "its layer's key is not declared")
    for term in _terms(rule.when):
        _check_term(term, objective)


def _terms(terms: list[Any]) -> Iterator[list[Any]]:
    for term in terms:
        _require(isinstance(term, list) and bool(term), "a condition is not a list")
        if isinstance(term[0], str):
            yield term
            continue
        for alternative in term:
            _require(isinstance(alternative, list), "an alternative is not a list")
            yield from _terms(alternative)


def _check_term(term: list[Any], objective: _Objective) -> None:
    _require(len(term) == 3 and term[0] in objective.context, "a condition is on an attribute that is not declared")
    _, operator, operand = term
    kind = objective.context[term[0]].type
    _require(isinstance(operator, str) and operator in OPERATORS[kind], "an operator does not fit its attribute")
    if operator == "present":
        _require(isinstance(operand, bool), "`present` is neither true nor false")
        return
    _require(isinstance(operand, list) != (operator in ORDERED) and operand != [], "an operand has another form")
    element: AttributeType = "string" if kind == "set" or operator in AFFIX else kind
    values = operand if isinstance(operand, list) else [operand]
    _require(all(accepts(element, value) for value in values), "an operand does not fit its attribute")


def _require(holds: bool, reason: str) -> None:
    if not holds:
        raise ValueError(reason)
