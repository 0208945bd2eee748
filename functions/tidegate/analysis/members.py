"""Finds made-up members that get a certain rule, a variant, or a cell of an experiment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tidegate.errors import NoRuleError
from tidegate.language.program import Program
from tidegate.rules.decision import Decision
from tidegate.rules.engine import Engine
from tidegate.rules.unknown_attributes import ALLOCATIONS

MADE_UP = "member-{}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """The rule, variant or cell that members must get; None: any."""

    rule: str | None = None
    variant: str | None = None
    experiment: str | None = None
    cell: str | None = None

    def is_met(self, decision: Decision) -> bool:
        cell = None if decision.cell is None else str(decision.cell)
        wanted = (self.rule, self.variant, self.experiment, self.cell)
        found = (decision.rule, decision.variant, decision.experiment, cell)
        return all(want in (None, have) for want, have in zip(wanted, found, strict=True))


@dataclass(frozen=True, slots=True)
class Member:
    context: Mapping[str, Any]
    decision: Decision


@dataclass(frozen=True, slots=True)
class Found:
    """The members that were found, the number that were tried, and the number that got each other result."""

    members: tuple[Member, ...]
    tried: int
    elsewhere: Mapping[str, int]


def find_members(
    program: Program,
    engine: Engine,
    objective: str,
    wanted: Wanted,
    context: Mapping[str, Any],
    *,
    count: int,
    most: int,
    at: float | None = None,
) -> Found:
    """Try made-up members one after the other until `count` get what is wanted; the same ones each time.

    `context` is what every member has besides; an attribute of a key that is in it is not made up. At most `most` are
    tried, at the time `at` in Unix seconds (None: now).

    Raises:
        ContextError: the context is not usable with a made-up member in it.
    """
    given = dict(context)
    if wanted.cell is not None and wanted.experiment in engine.objectives[objective].allocations:
        given.setdefault(ALLOCATIONS, {wanted.experiment: wanted.cell})
    made_up = _made_up(program, engine, objective, given)
    members: list[Member] = []
    elsewhere: Counter[str] = Counter()
    tried = 0
    for values in _candidates(engine, objective, made_up, most):
        tried += 1
        candidate = {**given, **values}
        try:
            decision = engine.decide(objective, candidate, at=at)
        except NoRuleError:
            elsewhere["no rule"] += 1
            continue
        if not wanted.is_met(decision):
            elsewhere[_words(decision)] += 1
            continue
        members.append(Member(candidate, decision))
        if len(members) == count:
            break
    return Found(tuple(members), tried, dict(elsewhere.most_common()))


def _made_up(program: Program, engine: Engine, objective: str, given: Mapping[str, Any]) -> list[str]:
    """Return the attributes to make up: one of the sticky key, and one of each layer's key, of which nothing is given.

    One of an open domain comes first, as it has members without end."""
    attributes = engine.objectives[objective].attributes
    rules = next(each.rules for each in program.objectives if each.name == objective)
    layers = {rule.experiment.layer for rule in rules if rule.experiment is not None}
    keys = [engine.objectives[objective].sticky_key]
    keys += [program.world.layers[layer].key for layer in sorted(layer for layer in layers if layer is not None)]
    free = [key for key in keys if key and not any(name in given for name in key)]
    return list(dict.fromkeys(min(key, key=lambda name: attributes[name].values is not None) for key in free))


def _candidates(engine: Engine, objective: str, made_up: list[str], most: int) -> Iterator[dict[str, Any]]:
    attributes = [engine.objectives[objective].attributes[name] for name in made_up]
    if not attributes:
        yield {}
        return
    closed = [len(each.values) for each in attributes if each.values is not None]
    for number in range(1, min(most, *closed, most) + 1):
        yield {
            each.name: each.values[number - 1]
            if each.values is not None
            else number
            if each.type == "integer"
            else MADE_UP.format(number)
            for each in attributes
        }


def _words(decision: Decision) -> str:
    if decision.experiment is not None:
        return f"rule {decision.rule}, experiment {decision.experiment}, cell {decision.cell}"
    return f"rule {decision.rule}" + ("" if decision.variant is None else f", variant {decision.variant}")
