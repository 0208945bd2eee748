"""The last step of a decision in two revisions: what the two matching rules give together, over every hash."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from tidegate.rules.actions import CallerExperiment, LayerExperiment, Race, Split
from tidegate.rules.compare.axes import Axes
from tidegate.rules.compare.joint import NEW, OLD
from tidegate.rules.compare.layers import Source
from tidegate.rules.compare.races import coupled, independent
from tidegate.rules.compare.space import Leaf
from tidegate.rules.decision import Decision

REFUSED = "(refused)"
UNSERVED = "(no rule)"

Outcome = Decision | str
"""A decision, or `REFUSED` (the context is an error) or `UNSERVED` (no rule matches)."""


@dataclass(frozen=True, slots=True)
class _Contest:
    """A race that the hash decides: its salt, the attribute that is hashed, weights and decisions by variant."""

    salt: str
    attribute: str
    weights: Mapping[str, int]
    decisions: Mapping[str, Decision]


def outcomes(axes: Axes, leaf: Leaf) -> list[tuple[Outcome, Outcome, Fraction]]:
    """The pairs of (old, new) outcome and their shares, which sum to 1."""
    was, now = _ending(axes, OLD, leaf), _ending(axes, NEW, leaf)
    if not isinstance(was, _Contest):
        if not isinstance(now, _Contest):
            return [(was, now, Fraction(1))]
        return [(was, now.decisions[j], share) for (_, j), share in independent({"": 1}, now.weights).items()]
    if not isinstance(now, _Contest):
        return [(was.decisions[i], now, share) for (i, _), share in independent(was.weights, {"": 1}).items()]
    join = coupled if (was.salt, was.attribute) == (now.salt, now.attribute) else independent
    shares = join(was.weights, now.weights)
    return [(was.decisions[i], now.decisions[j], share) for (i, j), share in shares.items()]


def _ending(axes: Axes, number: int, leaf: Leaf) -> Outcome | _Contest:
    row = leaf[number]
    assert not isinstance(row, tuple)
    if row is None:
        return REFUSED
    if row < 0:
        return UNSERVED
    side, rule = axes.joint.sides[number], axes.joint.pairs[row][number]
    assert rule is not None
    action = side.action(rule)
    source = axes.source(number, side.key_of(rule), leaf[2])
    match action:
        case Decision():
            return action
        case CallerExperiment():
            return action.cells[leaf[3][axes.cells.index(action.experiment)] or ""]
        case Split():
            salt = f"{side.objective.name}/{side.rules[rule]['id']}"
            return action.keyless if source is None else _contest(salt, action.race, source)
        case LayerExperiment():
            return _contest(action.experiment, action.race, source)


def _contest(salt: str, race: Race, source: Source) -> Decision | _Contest:
    assert source is not None
    attribute, text = source
    if not attribute:
        return race.pick(text.encode())
    weights: dict[str, int] = {}
    decisions: dict[str, Decision] = {}
    for (_, weight), decision in zip(race.variants, race.decisions, strict=True):
        variant = decision.variant or ""
        # Two cells of one text (1 and "1") make the same draws, so the heavier always wins.
        if weight > weights.get(variant, -1):
            weights[variant], decisions[variant] = weight, decision
    return _Contest(salt, attribute, weights, decisions)
