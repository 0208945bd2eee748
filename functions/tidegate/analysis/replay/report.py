"""Report of a replay: distributions, errors, the shares of splits and experiments, and what moved."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tidegate.analysis.compare.revision import Revision
from tidegate.analysis.replay.races import Race
from tidegate.analysis.replay.shares import MISMATCH_BELOW, Shares, Unit, Verdict, shares_of
from tidegate.analysis.replay.tally import Counted, FaultKind, Moved, Tally


@dataclass(frozen=True, slots=True)
class ObjectiveCounts:
    """The contexts of an objective in the log, those that got a decision, and the rules that none of them reached."""

    objective: str
    contexts: int
    decided: int
    rules: int
    unreached_rules: tuple[str, ...]


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

    @property
    def contexts(self) -> int:
        malformed = sum(fault.count for fault in self.tally.faults if fault.kind is FaultKind.MALFORMED)
        return self.tally.lines - self.tally.skipped - malformed

    @property
    def is_clean(self) -> bool:
        """Whether there were contexts, each got a decision, and no share is a mismatch."""
        return self.contexts > 0 and not self.tally.faults and not self.mismatches

    @property
    def tests(self) -> int:
        """Of shares of members."""
        return sum(each.test is not None and each.unit is Unit.MEMBERS for each in self.shares)

    @property
    def mismatches(self) -> int:
        return sum(each.verdict is Verdict.MISMATCH for each in self.shares)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values, in the form that docs/replay.md documents."""
        tally = self.tally
        contexts = {each.objective: each.contexts for each in self.objectives}
        return {
            "ok": self.is_clean and self.complete,
            "complete": self.complete,
            "revision": self.revision,
            "lines": tally.lines,
            "skipped": tally.skipped,
            "contexts": self.contexts,
            "decided": tally.decided,
            "errors": [asdict(fault) for fault in tally.faults],
            "objectives": [asdict(each) for each in self.objectives],
            "decisions": [_decision(each, contexts[each.decision.objective]) for each in tally.counted],
            "shares": [each.as_dict() for each in self.shares],
            "tests": {"made": self.tests, "mismatch_below": MISMATCH_BELOW, "mismatches": self.mismatches},
            "against": None if self.against is None else _against(self.against, tally.moved),
        }


def _decision(each: Counted, contexts: int) -> dict[str, Any]:
    names = ("model", "version", "variant", "experiment", "cell", "reason")
    return {
        "objective": each.decision.objective,
        "rule": each.decision.rule,
        "target": each.decision.target.name,
        **{name: getattr(each.decision, name) for name in names},
        "requests": each.requests,
        "share": each.requests / contexts,
    }


def _against(revision: str, objectives: tuple[Moved, ...]) -> dict[str, Any]:
    sums = [sum(getattr(each, name) for each in objectives) for name in ("contexts", "moved", "retuned")]
    return {
        "revision": revision,
        **_totals(*sums),
        "objectives": [
            {
                "objective": each.objective,
                **_totals(each.contexts, each.moved, each.retuned),
                "flows": [
                    {"from": old, "to": new, "retuned": retuned, "contexts": count, "share": count / each.contexts}
                    for old, new, retuned, count in each.flows
                ],
            }
            for each in objectives
        ],
    }


def _totals(contexts: int, moved: int, retuned: int) -> dict[str, Any]:
    share = moved / contexts if contexts else 0.0
    return {"contexts": contexts, "moved": moved, "moved_share": share, "retuned": retuned}


def report(
    revision: Revision,
    tally: Tally,
    races: Mapping[tuple[str, str], Race],
    against: str | None = None,
    *,
    complete: bool = True,
) -> ReplayReport:
    """Return the report of a replay on a revision, whose splits and experiments are `races`.

    `against` is the digest of the earlier revision, where there was one; `complete`: the whole log was read.
    """
    by_rule: dict[tuple[str, str], list[Counted]] = {}
    for each in tally.counted:
        if each.race is not None:
            by_rule.setdefault((each.race.objective, each.race.rule), []).append(each)
    shares = tuple(shares_of(races[key], by_rule[key]) for key in sorted(by_rule))
    return ReplayReport(revision.bundle.rules, against, complete, tally, tuple(_objectives(revision, tally)), shares)


def _objectives(revision: Revision, tally: Tally) -> Iterator[ObjectiveCounts]:
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
        ids = [rule.id for rule in revision.side(name).rules]
        decided = sum(rules.values())
        unreached = tuple(rule for rule in ids if rule not in rules)
        yield ObjectiveCounts(name, decided + failed.get(name, 0), decided, len(ids), unreached)
