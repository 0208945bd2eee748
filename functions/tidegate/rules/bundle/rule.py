"""The line of a rule: its conditions, and its action."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple, get_args

from tidegate.rules.bundle.json_values import (
    BOOLEAN,
    INTEGER,
    NUMBER,
    SCALAR,
    SCALARS,
    TEXT,
    TEXTS,
    Kind,
    Record,
    UnfitError,
    array,
    encode,
    one_of,
    or_none,
    pair,
)
from tidegate.rules.conditions import ORDERED, AnyOf, Conjunction, Operator, Predicate
from tidegate.rules.decision import NO_PARAMETERS, Fault, HedgeAt, Parameters

Window = tuple[float | None, float | None]
"""From (inside) and until (outside), in Unix seconds; None: unbounded."""


class Cell(NamedTuple):
    """A cell of an experiment; `parameters` are laid over the rule's."""

    cell: int | str
    serve: str
    weight: int
    parameters: Parameters = NO_PARAMETERS


class Experiment(NamedTuple):
    """An experiment of a rule. One that a layer allocates has the layer's name and the inclusive ranges of its buckets."""

    id: str
    allocate: Literal["layer", "caller"]
    cells: tuple[Cell, ...]
    layer: str | None = None
    ranges: tuple[tuple[int, int], ...] = ()


class Rule(NamedTuple):
    """A rule in its normal form. One of `serve`, `split` and `experiment` has a value; all targets are as written.

    `split` has the weights of its variants in order, `shadow` the percents of its targets, sorted by target. `fallback` and
    `timeout_ms` are those of the objective where the rule sets none.
    """

    id: str
    when: Conjunction
    serve: str | None = None
    split: tuple[tuple[str, int], ...] | None = None
    experiment: Experiment | None = None
    active: Window | None = None
    shadow: tuple[tuple[str, float], ...] = ()
    fallback: tuple[str, ...] = ()
    parameters: Parameters = NO_PARAMETERS
    timeout_ms: int | None = None
    hedge_after_ms: int | None = None
    hedge_at: HedgeAt | None = None
    fault: Fault | None = None

    def served(self) -> Iterator[str]:
        """Yield every target that the action serves."""
        if self.serve is not None:
            yield self.serve
        yield from (name for name, _ in self.split or ())
        yield from (cell.serve for cell in (self.experiment.cells if self.experiment else ()))

    def targets(self) -> Iterator[str]:
        """Yield every target that the rule can reach, shadows and fallbacks included."""
        yield from self.served()
        yield from (name for name, _ in self.shadow)
        yield from self.fallback

    def experiment_of(self, allocate: Literal["layer", "caller"]) -> Experiment | None:
        """Return the experiment if it is allocated this way, else None."""
        return self.experiment if self.experiment is not None and self.experiment.allocate == allocate else None


def encode_rule(rule: Rule) -> bytes:
    return encode(RULE.write(rule))


def decode_rule(line: bytes) -> Rule:
    rule = RULE.read(json.loads(line))
    if (rule.serve, rule.split, rule.experiment).count(None) != 2:
        raise UnfitError("it does not have one action")
    return rule


def _conditions_json(conjunction: Conjunction) -> list[Any]:
    return [
        [term.attribute, term.operator, term.operand]
        if isinstance(term, Predicate)
        else [_conditions_json(alternative) for alternative in term.alternatives]
        for term in conjunction
    ]


def _term(value: Any) -> Predicate | AnyOf:
    if not isinstance(value, list) or not value:
        raise UnfitError("a condition is not a list")
    if not isinstance(value[0], str):
        return AnyOf(_ALTERNATIVES.read(value))
    if len(value) != 3 or value[1] not in get_args(Operator):
        raise UnfitError("a condition has no operator")
    attribute, operator, operand = value
    if operator == "present":
        return Predicate(attribute, operator, BOOLEAN.read(operand))
    if operator in ORDERED:
        return Predicate(attribute, operator, SCALAR.read(operand))
    if operand == []:
        raise UnfitError("a condition has no value")
    return Predicate(attribute, operator, _OPERANDS.read(operand))


def _experiment(value: Any) -> Experiment:
    experiment = EXPERIMENT.read(value)
    if (experiment.allocate == "layer") != (experiment.layer is not None):
        raise UnfitError("a layer is missing, or not asked for")
    _check_weights([cell.weight for cell in experiment.cells])
    return experiment


def _split(value: Any) -> tuple[tuple[str, int], ...]:
    weights: tuple[tuple[str, int], ...] = _WEIGHTS.read(value)
    _check_weights([weight for _, weight in weights])
    return weights


def _check_weights(weights: list[int]) -> None:
    if not weights or min(weights) < 0 or sum(weights) == 0:
        raise UnfitError("its weights do not have a positive sum")


_OPERANDS = array(SCALAR)
_CONDITIONS = Kind(array(Kind(_term)).read, _conditions_json)
_ALTERNATIVES = array(Kind(_CONDITIONS.read))
_WEIGHTS = array(pair(TEXT, INTEGER))
_CELL = Record(
    Cell,
    cell=Kind(lambda cell: cell if isinstance(cell, str) else INTEGER.read(cell)),
    serve=TEXT,
    weight=INTEGER,
    parameters=SCALARS,
)
EXPERIMENT = Record(
    Experiment,
    id=TEXT,
    allocate=one_of("layer", "caller"),
    cells=array(_CELL),
    layer=TEXT,
    ranges=array(pair(INTEGER, INTEGER)),
)
_FAULT = Record(Fault, percent=NUMBER, delay_ms=INTEGER, abort_status=INTEGER)
RULE = Record(
    Rule,
    id=TEXT,
    when=_CONDITIONS,
    serve=TEXT,
    split=Kind(_split),
    experiment=Kind(_experiment, EXPERIMENT.write),
    active=pair(or_none(NUMBER), or_none(NUMBER)),
    shadow=array(pair(TEXT, NUMBER)),
    fallback=TEXTS,
    parameters=SCALARS,
    timeout_ms=INTEGER,
    hedge_after_ms=INTEGER,
    hedge_at=one_of(*get_args(HedgeAt)),
    fault=_FAULT,
)
