"""The share of an objective's traffic that moves between two revisions, and from which target to which."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, log, sqrt

from tidegate.analysis.compare.axes import Axes, build_axes
from tidegate.analysis.compare.axis import by_weight
from tidegate.analysis.compare.boxes import TooMuchError
from tidegate.analysis.compare.contests import outcomes
from tidegate.analysis.compare.examples import Examples
from tidegate.analysis.compare.revision import Side
from tidegate.analysis.compare.space import Leaf, Space, State, Walked
from tidegate.analysis.compare.volumes import Counted, Volumes
from tidegate.analysis.space.outcomes import Example, Outcome, is_retuned, rule_of, target_text
from tidegate.rules.engine import Engine

_Key = tuple[str | None, str | None, str, str, bool]
"""The rules and targets of a flow, and whether it is retuned."""

Engines = tuple[Engine, Engine]
"""The engines of the old and the new revision."""

STEP_BUDGET = 60_000
COUNT_BUDGET = 3_000_000
"""Counting this much takes some three seconds, with ten thousand rules some five."""

SAMPLE_SIZE = 20_000
SAMPLED_AXES = 4_000_000
MIN_SAMPLE_SIZE = 200
"""Limit of the axes of all drawn contexts, so that a space of many axes draws fewer contexts; and the fewest contexts."""

SAMPLE_SEED = 20_260_501
CONFIDENCE = 0.95

EXACT_BITS = 4096
"""A sum of shares whose denominator grows beyond this is carried on in floating point (an error of about 1e-16)."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A share (0–1) of the traffic, by the rule and target that serve it in the old and in the new revision.

    A target is `model` or `model/version`, or in parentheses why there is none; a rule is None where none decides.
    `retuned`: the target is the same, its parameters, fallbacks, shadows or timeouts are not. `example` is a context that both
    engines decide so; None where none was looked for, as where nothing changes, or none was found.
    """

    old_rule: str | None
    new_rule: str | None
    old_target: str
    new_target: str
    share: float
    retuned: bool
    example: Example | None = None

    @property
    def moved(self) -> bool:
        return self.old_target != self.new_target


@dataclass(frozen=True, slots=True)
class Estimate:
    """The largest error of a share, with 95 % confidence, and the number of contexts that were drawn for it;
    (0, 0) where it is exact."""

    bound: float = 0.0
    drawn: int = 0


@dataclass(frozen=True, slots=True)
class ObjectiveShares:
    """The flows of one objective; their shares sum to 1 (none: a long objective that is the same in both revisions).

    `contexts` is how many contexts of a log weigh them (None: every case of a context weighs alike). `changing` is how exact
    the shares are of flows that move or are retuned, `staying` of those that are neither.
    """

    objective: str
    moved: float
    retuned: float
    unchanged: float
    flows: tuple[Flow, ...]
    changing: Estimate = Estimate()
    staying: Estimate = Estimate()
    contexts: int | None = None

    @property
    def undecided(self) -> str | None:
        """The reason why some shares are estimates; None if all are exact."""
        if not self.staying.drawn:
            return None
        what = "which share moves" if self.changing.drawn else "how the share that stays is divided among the rules"
        return (
            f"{what} was not decided exactly, as the rules overlap in too many ways: it is estimated from "
            f"{self.changing.drawn or self.staying.drawn:,} contexts drawn at random"
        )

    def by_target(self) -> list[tuple[str, str, float, float]]:
        """Return (old target, new target, share, retuned part of the share), the largest first."""
        sums: dict[tuple[str, str], tuple[float, float]] = {}
        for flow in self.flows:
            pair = flow.old_target, flow.new_target
            share, retuned = sums.get(pair, (0.0, 0.0))
            sums[pair] = share + flow.share, retuned + (flow.share if flow.retuned else 0.0)
        ordered = sorted(sums.items(), key=lambda each: (-each[1][0], each[0]))
        return [(old, new, share, retuned) for (old, new), (share, retuned) in ordered]


def uniform_shares(
    old: Side, new: Side, at: float, budget: int = STEP_BUDGET, engines: Engines | None = None
) -> ObjectiveShares:
    """Return the shares with every case of every attribute weighted alike, at a moment in Unix seconds.

    The walk of `space` comes first; where it takes more than `budget` steps, the volumes of boxes are counted. Where that
    takes too much as well, the states that the walk reached become strata, and contexts are drawn from each. With `engines`,
    the flows that change have examples.
    """
    axes = build_axes(old, new)
    examples = None if engines is None else Examples(axes, engines, at)
    space, chance = axes.space, random.Random(SAMPLE_SEED)  # noqa: S311  # a repeatable sample, no secret
    start = axes.start(at)
    changing = space.walk({start: 1}, budget)
    staying = None if changing.undecided else space.walk(changing.alike, budget, into_alike=True)
    leaves: dict[Leaf, Fraction] = {}
    if staying is None or staying.undecided:
        volumes, counted = _counted(axes, start)
        if counted is not None and counted.staying is not None:
            _add_all(leaves, {**counted.changing, **counted.staying}, space)
            return summary(axes, leaves, examples)
        if counted is not None and staying is None:
            _add_all(leaves, counted.changing, space)
            staying_estimate = _unmoved(axes, changing, chance, leaves)
            return summary(axes, leaves, examples, staying=staying_estimate)
        if volumes is not None and staying is None:
            drawn = volumes.drawn(SAMPLE_SIZE, chance)
            if drawn.whole < space.total:
                whole = Fraction(drawn.whole, space.total)
                for leaf, count in drawn.counts.items():
                    _add(leaves, leaf, whole * Fraction(count, SAMPLE_SIZE))
                bound = float(whole) * sqrt(log(2 / (1 - CONFIDENCE)) / (2 * SAMPLE_SIZE))
                estimate = Estimate(bound, SAMPLE_SIZE)
                unmoved = _worse(estimate, _unmoved(axes, changing, chance, leaves))
                return summary(axes, leaves, examples, changing=estimate, staying=unmoved)
        staying = staying or space.walk(changing.alike, budget, into_alike=True)
    estimates = []
    for walked in (changing, staying):
        _add_all(leaves, walked.leaves, space)
        estimates.append(_sampled(space, walked.undecided, chance, leaves))
    return summary(axes, leaves, examples, changing=estimates[0], staying=_worse(*estimates))


def _counted(axes: Axes, start: State) -> tuple[Volumes | None, Counted | None]:
    """Return the volumes, and the weights that they counted; None for a part that takes too much."""
    try:
        volumes = Volumes(axes, start, COUNT_BUDGET)
    except TooMuchError:
        return None, None
    try:
        return volumes, volumes.count()
    except TooMuchError:
        return volumes, None


def _unmoved(axes: Axes, walked: Walked, chance: random.Random, leaves: dict[Leaf, Fraction]) -> Estimate:
    """Add what does not move to the leaves that do, which are exact: by drawing contexts, scaled to what is left."""
    found: dict[Leaf, Fraction] = {}
    estimate = _sampled(axes.space, {**walked.alike, **walked.undecided}, chance, found, mistakes=2)
    _add_all(found, walked.leaves, axes.space)
    staying = {leaf: share for leaf, share in found.items() if not axes.is_changing(leaf)}
    drawn, left = sum(staying.values(), Fraction(0)), 1 - sum(leaves.values(), Fraction(0))
    for leaf, share in staying.items():
        _add(leaves, leaf, share * left / drawn)
    # The scale is as far off as a share is.
    return Estimate(min(1.0, 2 * estimate.bound), estimate.drawn)


def _sampled(
    space: Space, states: Mapping[State, int], chance: random.Random, leaves: dict[Leaf, Fraction], mistakes: int = 1
) -> Estimate:
    """Draw contexts of undecided states, and add what they decide. The estimate holds for so many shares at once."""
    size, spread = 0, 0.0
    most = max(MIN_SAMPLE_SIZE, min(SAMPLE_SIZE, SAMPLED_AXES // len(space.axes))) if space.axes else SAMPLE_SIZE
    undecided = {state: weight * space.weight(state[0]) for state, weight in states.items()}
    for state, share, draws in _strata(undecided, space.total, most, chance):
        counted = Counter(space.complete(state, chance) for _ in range(draws))
        size, spread = size + draws, spread + float(share) ** 2 / draws
        for leaf, count in counted.items():
            _add(leaves, leaf, share * Fraction(count, draws))
    # Hoeffding's inequality for independent draws, of which each weighs share / draws of its stratum.
    return Estimate(min(1.0, sqrt(log(2 * mistakes / (1 - CONFIDENCE)) / 2 * spread)), size)


def _worse(changing: Estimate, staying: Estimate) -> Estimate:
    """Return the estimate of flows that neither move nor are retuned, which may be in either part."""
    return Estimate(min(1.0, sqrt(changing.bound**2 + staying.bound**2)), changing.drawn + staying.drawn)


def _strata(
    states: Mapping[State, int], total: int, size: int, chance: random.Random
) -> Iterator[tuple[State, Fraction, int]]:
    """Yield states with their shares and numbers of draws; where they are too many, some drawn by weight."""
    whole = sum(states.values())
    if len(states) <= size:
        for state, weight in states.items():
            yield state, Fraction(weight, total), max(1, ceil(Fraction(weight * size, whole)))
        return
    draw = by_weight(states)
    for _ in range(size):
        yield draw(chance), Fraction(whole, total * size), 1


def _add_all(leaves: dict[Leaf, Fraction], weights: Mapping[Leaf, int], space: Space) -> None:
    for leaf, weight in weights.items():
        _add(leaves, leaf, Fraction(weight, space.total))


def _add(leaves: dict[Leaf, Fraction], leaf: Leaf, share: Fraction) -> None:
    leaves[leaf] = leaves.get(leaf, Fraction(0)) + share


def summary(
    axes: Axes,
    leaves: Mapping[Leaf, Fraction],
    examples: Examples | None = None,
    *,
    contexts: int | None = None,
    changing: Estimate = Estimate(),
    staying: Estimate = Estimate(),
) -> ObjectiveShares:
    """Return the shares of an objective from the share of each leaf; they sum to 1."""
    sums: dict[_Key, Fraction | float] = {}
    largest: dict[_Key, tuple[Fraction, Leaf, Outcome, Outcome]] = {}
    for leaf, weight in leaves.items():
        for old, new, share in outcomes(axes, leaf):
            source, target = target_text(old), target_text(new)
            key = (rule_of(old), rule_of(new), source, target, is_retuned(old, new))
            part = weight * share
            sums[key] = _plus(sums.get(key, Fraction(0)), part)
            if examples is not None and (source != target or key[4]) and (key not in largest or part > largest[key][0]):
                largest[key] = part, leaf, old, new
    moved = _sum(share for key, share in sums.items() if key[2] != key[3])
    retuned = _sum(share for key, share in sums.items() if key[4])
    unchanged = _sum(share for key, share in sums.items() if key[2] == key[3] and not key[4])
    flows = []
    for key, whole in sorted(sums.items(), key=lambda each: (-each[1], _ordered(each[0]))):
        if whole:
            found = examples.find(*largest[key][1:]) if examples is not None and key in largest else None
            flows.append(Flow(*key[:4], float(whole), key[4], found))
    name = axes.joint.sides[0].objective.name
    return ObjectiveShares(name, moved, retuned, unchanged, tuple(flows), changing, staying, contexts)


def _ordered(key: _Key) -> tuple[str | bool, ...]:
    return key[0] or "", key[1] or "", *key[2:]


def _sum(shares: Iterable[Fraction | float]) -> float:
    total: Fraction | float = Fraction(0)
    for share in shares:
        total = _plus(total, share)
    return float(total)


def _plus(one: Fraction | float, other: Fraction | float) -> Fraction | float:
    total = one + other
    if isinstance(total, Fraction) and total.denominator.bit_length() > EXACT_BITS:
        return float(total)
    return total
