"""Finds rules of two revisions that match the same contexts, and those of them that also do the same."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from tidegate.analysis.compare.revision import Side, predicates
from tidegate.rules.bundle import encode
from tidegate.rules.bundle.rule import Rule, encode_rule

Pair = tuple[int | None, int | None]
"""The positions of a rule in the old and the new revision (None: it is missing, or matches other contexts)."""


def aligned(old: Side, new: Side) -> list[Pair]:
    """Return all rules of both revisions in one order that keeps the order of each.

    A rule that matches the same contexts in both is listed once, whatever it does with them; of those that changed places,
    as many as possible.
    """
    place_in_new = {rule.id: place for place, rule in enumerate(new.rules)}
    same = [
        (place, there)
        for place, rule in enumerate(old.rules)
        if (there := place_in_new.get(rule.id)) is not None and _match_alike(old, place, new, there)
    ]
    kept = longest_rising([there for _, there in same])
    pairs: list[Pair] = []
    was = now = 0
    for place, there in [*(pair for pair in same if pair[1] in kept), (len(old.rules), len(new.rules))]:
        # Rules of one revision alternate with those of the other, so that what decides first comes first.
        for one, other in zip_longest(range(was, place), range(now, there)):
            pairs += [(one, None)] if one is not None else []
            pairs += [(None, other)] if other is not None else []
        pairs.append((place, there))
        was, now = place + 1, there + 1
    return pairs[:-1]


def longest_rising(places: Sequence[int]) -> set[int]:
    tails: list[int] = []
    before: dict[int, int | None] = {}
    for place in places:
        at = bisect_left(tails, place)
        before[place] = tails[at - 1] if at else None
        tails[at : at + 1] = [place]
    kept: set[int] = set()
    last = tails[-1] if tails else None
    while last is not None:
        kept.add(last)
        last = before[last]
    return kept


def same_json(one: Any, other: Any) -> bool:
    """Return whether two JSON values are the same for a model, for which `true` is not 1 and 1.0 is not 1."""
    return one is other or encode(one) == encode(other)


def act_alike(old: Side, place: int, new: Side, there: int) -> bool:
    """Return whether two rules that match the same contexts also do the same with them."""
    before, after = old.rules[place], new.rules[there]
    if before != after or encode_rule(before) != encode_rule(after) or old.key_of(place) != new.key_of(there):
        return False
    if any(_resolved(old, name) != _resolved(new, name) for name in before.targets()):
        return False
    return all(_reading(old, name) == _reading(new, name) for name in old.key_of(place))


def _match_alike(old: Side, place: int, new: Side, there: int) -> bool:
    before, after = old.rules[place], new.rules[there]
    if _matching(before) != _matching(after):
        return False
    names = {term.attribute for term in predicates(before.when)}
    if before.experiment_of("layer"):
        names.update(old.key_of(place))
        if old.key_of(place) != new.key_of(there):
            return False
    return all(_reading(old, name) == _reading(new, name) for name in names)


def _matching(rule: Rule) -> tuple[Any, ...]:
    """Return the parts of a rule that decide which contexts it matches, an experiment's included."""
    asked = encode_rule(Rule(rule.id, rule.when, active=rule.active))
    experiment = rule.experiment
    if experiment is None:
        return (asked,)
    if experiment.allocate == "layer":
        return asked, experiment.layer, experiment.ranges
    return asked, experiment.id, sorted({str(each.cell) for each in experiment.cells})


def _resolved(side: Side, name: str) -> tuple[str, int | None]:
    target = side.targets[name]
    return target.model, target.version


def _reading(side: Side, name: str) -> Any:
    """Return the parts of an attribute's declaration that decide which contexts meet a condition on it."""
    attribute = side.objective.attributes[name]
    return attribute.type, encode(attribute.default)
