"""What a replay found: distributions, errors, the shares of splits and experiments and their tests, and what moved."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Literal

from tidegate.rules.compare.revision import Revision
from tidegate.rules.compare.shares import settings_of, target_text
from tidegate.rules.replay.races import Configured
from tidegate.rules.replay.statistics import LEAST_EXPECTED, ShareTest, share_test, wilson
from tidegate.rules.replay.tally import Counted, Flow, Tally

MISMATCH_BELOW = 0.001
"""A p-value below this is called a mismatch (the customary bound: Kohavi, Tang, Xu, "Trustworthy Online Controlled
Experiments", 2020, chapter 21)."""

Verdict = Literal["match", "mismatch", "suspect", "untested"]
"""What a test of shares says. `suspect` is a mismatch of requests: those of one member are not independent of each other,
so they prove nothing."""


@dataclass(frozen=True, slots=True)
class VariantShare:
    """A variant's configured and counted share, with the 95 % interval of the latter. Shares are 0–1.

    `count` is of what the shares are of: members, or requests where members cannot be told apart.
    """

    variant: str
    weight: int
    requests: int
    count: int
    expected: float
    actual: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Shares:
    """The shares of one split or experiment. `unit` is what is counted; `untested` says why there is no test."""

    race: Configured
    unit: Literal["members", "requests"]
    variants: tuple[VariantShare, ...]
    test: ShareTest | None
    untested: str

    @property
    def total(self) -> int:
        """How many members, or requests, were counted."""
        return sum(variant.count for variant in self.variants)

    @property
    def verdict(self) -> Verdict:
        """Whether the counted shares contradict the configured ones."""
        if self.test is None:
            return "untested"
        if self.test.p_value >= MISMATCH_BELOW:
            return "match"
        return "mismatch" if self.unit == "members" else "suspect"


@dataclass(frozen=True, slots=True)
class ObjectiveCounts:
    """How many contexts of an objective the log has, how many got a decision, and which rules none of them reached."""

    objective: str
    contexts: int
    decided: int
    rules: int
    unreached: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Moved:
    """What another revision served, and what is served now, of the contexts of an objective.

    `flows` counts (earlier target, target now, retuned), the largest first. Retuned: the target is the same, its
    parameters, fallbacks, shadows or timeouts are not.
    """

    objective: str
    contexts: int
    flows: tuple[tuple[str, str, bool, int], ...]

    @property
    def moved(self) -> int:
        """How many contexts another target serves."""
        return sum(count for old, new, _, count in self.flows if old != new)

    @property
    def retuned(self) -> int:
        """How many contexts the same target serves in another way."""
        return sum(count for *_, retuned, count in self.flows if retuned)


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """Everything that a replay found. `against` is the earlier revision, where there is one; `complete` is False where the
    replay was interrupted."""

    revision: str
    against: str | None
    complete: bool
    tally: Tally
    objectives: tuple[ObjectiveCounts, ...]
    shares: tuple[Shares, ...]
    moved: tuple[Moved, ...]

    @property
    def contexts(self) -> int:
        """How many contexts were looked at."""
        malformed = sum(fault.count for fault in self.tally.faults if fault.kind == "malformed")
        return self.tally.lines - self.tally.skipped - malformed

    @property
    def is_clean(self) -> bool:
        """Whether there were contexts, each got a decision, and no share is a mismatch."""
        mismatch = any(each.verdict == "mismatch" for each in self.shares)
        return self.contexts > 0 and not self.tally.faults and not mismatch

    @property
    def tests(self) -> int:
        """How many tests of members' shares were made."""
        return sum(each.test is not None and each.unit == "members" for each in self.shares)


def report(
    revision: Revision,
    tally: Tally,
    races: Mapping[tuple[str, str], Configured],
    against: str | None = None,
    *,
    complete: bool = True,
) -> ReplayReport:
    """The report of a replay.

    Args:
        revision: what was replayed on.
        tally: what was counted.
        races: the revision's splits and experiments.
        against: the digest of the earlier revision, where there was one.
        complete: whether the whole log was read.
    """
    by_rule: dict[tuple[str, str], list[Counted]] = {}
    for each in tally.counted:
        if each.race is not None:
            by_rule.setdefault((each.race.objective, each.race.rule), []).append(each)
    return ReplayReport(
        revision.bundle.rules,
        against,
        complete,
        tally,
        tuple(_objectives(revision, tally)),
        tuple(_shares(races[key], by_rule[key]) for key in sorted(by_rule)),
        tuple(_moved(tally.flows)),
    )


def _objectives(revision: Revision, tally: Tally) -> Iterable[ObjectiveCounts]:
    reached: dict[str, dict[str, int]] = {}
    for each in tally.counted:
        rules = reached.setdefault(each.decision.objective, {})
        rules[each.decision.rule] = rules.get(each.decision.rule, 0) + each.requests
    failed: dict[str, int] = {}
    for fault in tally.faults:
        if fault.objective:
            failed[fault.objective] = failed.get(fault.objective, 0) + fault.count
    for name in sorted({*reached, *failed}):
        rules = reached.get(name, {})
        ids = [rule["id"] for rule in revision.side(name).rules]
        decided = sum(rules.values())
        unreached = tuple(rule for rule in ids if rule not in rules)
        yield ObjectiveCounts(name, decided + failed.get(name, 0), decided, len(ids), unreached)


def _shares(race: Configured, counted: Iterable[Counted]) -> Shares:
    found = {each.decision.variant: each for each in counted}
    unit: Literal["members", "requests"] = "members" if race.sources else "requests"
    requests = [found[variant].requests if variant in found else 0 for variant in race.weights]
    counts = requests
    if unit == "members":
        counts = [found[variant].members if variant in found else 0 for variant in race.weights]
    weights, total = list(race.weights.values()), sum(counts)
    variants = []
    for variant, weight, seen, count in zip(race.weights, weights, requests, counts, strict=True):
        low, high = wilson(count, total)
        share = count / total if total else 0.0
        variants.append(VariantShare(variant, weight, seen, count, weight / sum(weights), share, low, high))
    test = share_test(counts, weights)
    return Shares(race, unit, tuple(variants), test, "" if test is not None else _untested(weights, unit))


def _untested(weights: list[int], unit: str) -> str:
    positive = [weight for weight in weights if weight]
    if len(positive) < 2:
        return "a single variant has weight"
    needed = ceil(LEAST_EXPECTED * sum(positive) / min(positive))
    return f"too few {unit}: {needed} are needed"


def _moved(flows: Iterable[Flow]) -> Iterable[Moved]:
    by_objective: dict[str, dict[tuple[str, str, bool], int]] = {}
    for flow in flows:
        old, new = target_text(flow.old), target_text(flow.new)
        retuned = old == new and settings_of(flow.old) != settings_of(flow.new)
        counts = by_objective.setdefault(flow.objective, {})
        counts[old, new, retuned] = counts.get((old, new, retuned), 0) + flow.count
    for objective, counts in sorted(by_objective.items()):
        ordered = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
        yield Moved(objective, sum(counts.values()), tuple((*key, count) for key, count in ordered))
