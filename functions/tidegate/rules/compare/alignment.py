"""Which rules of two revisions match the same contexts, and which of these also do the same."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Any

from tidegate.rules.bundle import encode
from tidegate.rules.compare.revision import Side
from tidegate.rules.conditions import AnyOf, Conjunction, from_json
from tidegate.rules.semantics import body_targets

Pair = tuple[int | None, int | None]
"""The places of a rule in the old and in the new revision (None: it is not there, or matches other contexts)."""

ACTIONS = ("serve", "split", "shadow", "fallback", "parameters", "timeout_ms", "hedge_after_ms")
"""What a rule does, and not which contexts it matches. An experiment is both."""


def aligned(old: Side, new: Side) -> list[Pair]:
    """All rules of both revisions in one order that keeps the order of each; a rule that matches the same contexts in both
    is listed once, whatever it does with them.

    Of rules that match the same but changed places, as many as possible stand once.
    """
    place_in_new = {rule["id"]: place for place, rule in enumerate(new.rules)}
    same = [
        (place, there)
        for place, rule in enumerate(old.rules)
        if (there := place_in_new.get(rule["id"])) is not None and _match_alike(old, place, new, there)
    ]
    kept = longest_rising([there for _, there in same])
    pairs: list[Pair] = []
    was = now = 0
    for place, there in [*(pair for pair in same if pair[1] in kept), (len(old.rules), len(new.rules))]:
        # Rules of one revision alternate with those of the other, so that what decides first stands first.
        for one, other in zip_longest(range(was, place), range(now, there)):
            pairs += [(one, None)] if one is not None else []
            pairs += [(None, other)] if other is not None else []
        pairs.append((place, there))
        was, now = place + 1, there + 1
    return pairs[:-1]


def longest_rising(places: Sequence[int]) -> set[int]:
    """A longest rising subsequence of distinct numbers."""
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
    """Whether two JSON values are alike to a model, to which `true` is not 1 and 1.0 is not 1."""
    return one is other or encode(one) == encode(other)


def act_alike(old: Side, place: int, new: Side, there: int) -> bool:
    """Whether two rules that match the same contexts also do the same with them."""
    before, after = old.rules[place], new.rules[there]
    if before != after or not same_json(before, after) or old.key_of(place) != new.key_of(there):
        return False
    if any(_resolved(old, name) != _resolved(new, name) for name in body_targets(before)):
        return False
    return all(_reading(old, name) == _reading(new, name) for name in old.key_of(place))


def _match_alike(old: Side, place: int, new: Side, there: int) -> bool:
    before, after = old.rules[place], new.rules[there]
    if not same_json(_matching(before), _matching(after)):
        return False
    names = set(_attributes(from_json(before["when"])))
    if before.get("experiment", {}).get("allocate") == "layer":
        names.update(old.key_of(place))
        if old.key_of(place) != new.key_of(there):
            return False
    return all(_reading(old, name) == _reading(new, name) for name in names)


def _matching(rule: Mapping[str, Any]) -> dict[str, Any]:
    """What of a rule says which contexts it matches."""
    found = {key: value for key, value in rule.items() if key not in ACTIONS}
    experiment = rule.get("experiment")
    if experiment is not None:
        cells = sorted({str(cell["cell"]) for cell in experiment["cells"]})
        compared = ("allocate", "layer", "ranges") if experiment["allocate"] == "layer" else ("allocate", "id")
        found["experiment"] = {key: experiment[key] for key in compared if key in experiment}
        if experiment["allocate"] == "caller":
            found["experiment"]["cells"] = cells
    return found


def _resolved(side: Side, name: str) -> tuple[str, int | None]:
    target = side.targets[name]
    return target.model, target.version


def _reading(side: Side, name: str) -> Any:
    """What of an attribute's declaration decides which contexts meet a condition on it."""
    attribute = side.objective.attributes[name]
    return attribute.type, encode(attribute.default)


def _attributes(conjunction: Conjunction) -> Iterator[str]:
    for term in conjunction:
        if isinstance(term, AnyOf):
            yield from _all_attributes(term.alternatives)
        else:
            yield term.attribute


def _all_attributes(alternatives: Iterable[Conjunction]) -> Iterator[str]:
    for alternative in alternatives:
        yield from _attributes(alternative)
