"""The last step of a decision in two revisions: the joint outcomes of the two matching rules, over every hash.

Both races of a pair have the same salt, so a variant of the same name draws the same exponential `E = -ln(u)` in both.
With old weights `w` and new weights `w'` (0 where a variant is missing), the old winner is the smallest `E_v / w_v`, the
new winner the smallest `E_v / w'_v`.

*Who stays.* `i` wins both where every other `E_v` is at least `E_i * max(w_v / w_i, w'_v / w'_i)`. Given `E_i = e` that
has the probability `exp(-e * (sum of those maxima))`; integrated over `e` with its own density::

    P(i, i) = 1 / sum_v max(w_v / w_i, w'_v / w'_i)          (the term of v = i is 1)

*Who moves.* Let the old winner `i` finish at `s = E_i / w_i` and the new winner `j` at `t = E_j / w'_j`. Everyone else must
have `E_v >= max(w_v s, w'_v t)`, and the same must hold for `i` (`w_i s >= w'_i t`) and for `j` (`w'_j t >= w_j s`). So the
density of `(s, t)` is `w_i w'_j exp(-sum_v max(w_v s, w'_v t))` where `r = t / s` lies between `w_j / w'_j` and
`w_i / w'_i`, and nil elsewhere. With `t = r s` the integral over `s` leaves::

    P(i, j) = w_i w'_j * integral of dr / (sum_v max(w_v, w'_v r))^2   from r = w_j / w'_j to w_i / w'_i

The sum is linear in `r` between the ratios `w_v / w'_v`, and the integral of `dr / (A + B r)^2` from `a` to `b` is
`(b - a) / ((A + B a)(A + B b))`: every share is a rational number. docs/diff.md has bounds of what moves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from tidegate.analysis.compare.axes import Axes, Source, source_of
from tidegate.analysis.compare.joint import NEW, OLD
from tidegate.analysis.compare.space import Leaf
from tidegate.analysis.space.outcomes import REFUSED, UNSERVED, Outcome
from tidegate.rules.actions import CallerExperiment, LayerExperiment, Race, Split
from tidegate.rules.decision import Decision
from tidegate.rules.index import winner_of

Shares = dict[tuple[str, str], Fraction]


@dataclass(frozen=True, slots=True)
class _Contest:
    """A race that the hash decides: its salt, the attribute that is hashed, weights and decisions by variant."""

    salt: str
    attribute: str
    weights: Mapping[str, int]
    decisions: Mapping[str, Decision]


def outcomes(axes: Axes, leaf: Leaf) -> list[tuple[Outcome, Outcome, Fraction]]:
    """Return the pairs of (old, new) outcome and their shares, which sum to 1."""
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
    source = source_of(side, side.key_of(rule), dict(zip(axes.keys, leaf[2], strict=True)))
    match action:
        case Decision():
            return action
        case CallerExperiment():
            return action.cells[leaf[3][axes.cells.index(action.experiment)] or ""]
        case Split():
            salt = f"{side.objective.name}/{side.rules[rule].id}"
            return action.keyless if source is None else _contest(salt, action.race, source)
        case LayerExperiment():
            return _contest(action.experiment, action.race, source)


def _contest(salt: str, race: Race, source: Source) -> Decision | _Contest:
    assert source is not None
    attribute, text = source
    if not attribute:
        return winner_of(race, text.encode())
    weights: dict[str, int] = {}
    decisions: dict[str, Decision] = {}
    for (_, weight), decision in zip(race.variants, race.decisions, strict=True):
        variant = decision.variant or ""
        # Two cells of one text (1 and "1") make the same draws, so the heavier always wins.
        if weight > weights.get(variant, -1):
            weights[variant], decisions[variant] = weight, decision
    return _Contest(salt, attribute, weights, decisions)


def winners(weights: Mapping[str, int]) -> dict[str, Fraction]:
    """Return the share of each variant of one race; variants of weight 0 have none."""
    total = sum(weights.values())
    return {variant: Fraction(weight, total) for variant, weight in weights.items() if weight}


def independent(old: Mapping[str, int], new: Mapping[str, int]) -> Shares:
    """Return the shares of (old winner, new winner) of races with different salts or different keys."""
    return {(i, j): one * other for i, one in winners(old).items() for j, other in winners(new).items()}


def coupled(old: Mapping[str, int], new: Mapping[str, int]) -> Shares:
    """Return the shares of (old winner, new winner) of races with the same salt and the same key; they sum to 1.

    The weights, by variant, are 0 or more, with a positive sum.
    """
    if old == new:
        return {(name, name): share for name, share in winners(old).items()}
    names = [*old, *(name for name in new if name not in old)]
    pairs = {name: (old.get(name, 0), new.get(name, 0)) for name in names if old.get(name) or new.get(name)}
    area = _areas(list(pairs.values()))
    shares: Shares = {}
    for i, (was, becomes) in pairs.items():
        if was and becomes:
            stays = sum(max(Fraction(w, was), Fraction(n, becomes)) for w, n in pairs.values())
            shares[i, i] = 1 / Fraction(stays)
        for j, (before, now) in pairs.items():
            if i != j and was and now:
                flow = was * now * (area[_ratio(was, becomes)] - area[_ratio(before, now)])
                if flow > 0:
                    shares[i, j] = flow
    return shares


def _ratio(was: int, becomes: int) -> Fraction | None:
    """Return the ratio at which the old weight and the new one balance; None is infinity."""
    return Fraction(was, becomes) if becomes else None


def _areas(pairs: list[tuple[int, int]]) -> dict[Fraction | None, Fraction]:
    """Return the integral from 0 to each ratio of dr / (sum of max(w, w' r))^2."""
    ratios = sorted({ratio for was, becomes in pairs if (ratio := _ratio(was, becomes)) is not None} | {Fraction(0)})

    def height(r: Fraction) -> Fraction:
        return sum((max(Fraction(was), becomes * r) for was, becomes in pairs), Fraction(0))

    area: dict[Fraction | None, Fraction] = {Fraction(0): Fraction(0)}
    total = Fraction(0)
    for low, high in pairwise(ratios):
        total += (high - low) / (height(low) * height(high))
        area[high] = total
    slope = sum(becomes for _, becomes in pairs)
    area[None] = total + 1 / (slope * height(ratios[-1]))
    return area
