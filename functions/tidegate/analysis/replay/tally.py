"""Decides recorded contexts and counts the decisions, in memory that depends on the rules and not on the log."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from tidegate.analysis.replay.races import Members, Race
from tidegate.analysis.replay.records import Record
from tidegate.analysis.space.outcomes import (
    NO_OBJECTIVE,
    REFUSED,
    UNSERVED,
    Outcome,
    is_retuned,
    outcome_of,
    target_text,
)
from tidegate.errors import ContextError, NoRuleError, RequestError
from tidegate.rules.decision import Decision
from tidegate.rules.engine import Engine

FIRST_LINES = 5

NAMED_OBJECTIVES = 20
"""Most unknown objectives that are reported by their names; the rest are counted together."""


class FaultKind(StrEnum):
    MALFORMED = "malformed"
    UNKNOWN_OBJECTIVE = "unknown_objective"
    CONTEXT = "context"
    NO_RULE = "no_rule"


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


@dataclass(slots=True)
class Fault:
    """Lines that got no decision, for one reason: how many, and the numbers of the first few.

    `objective` is None where the line has none that the rules know. `detail` never holds a value of a context.
    """

    kind: FaultKind
    objective: str | None
    detail: str
    count: int = 0
    first_lines: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Counted:
    """How often a decision was made: for how many requests, and of how many members, each counted once.

    `race` is the split or experiment that made it, if one did. Members are known where the race has a key.
    """

    decision: Decision
    race: Race | None
    requests: int = 0
    members: int = 0


@dataclass(frozen=True, slots=True)
class Moved:
    """Targets of the contexts of an objective in an earlier revision and now.

    `flows` counts (earlier target, target now, retuned), the largest first. Retuned: the target is the same, its
    parameters, fallbacks, shadows or timeouts are not.
    """

    objective: str
    contexts: int
    flows: tuple[tuple[str, str, bool, int], ...]

    @property
    def moved(self) -> int:
        return sum(count for old, new, _, count in self.flows if old != new)

    @property
    def retuned(self) -> int:
        return sum(count for *_, retuned, count in self.flows if retuned)


@dataclass(frozen=True, slots=True)
class Tally:
    """The counts of a replay; `skipped` are lines of other objectives than the one that was asked for."""

    counted: tuple[Counted, ...]
    faults: tuple[Fault, ...]
    moved: tuple[Moved, ...]
    skipped: int

    @property
    def decided(self) -> int:
        return sum(each.requests for each in self.counted)

    @property
    def lines(self) -> int:
        """The number of lines that were read, without blank ones."""
        return self.decided + self.skipped + sum(fault.count for fault in self.faults)


class Replayer:
    """Replays records on an engine, and where given also on that of an earlier revision (`against`).

    `races` are the splits and experiments by (objective, rule). Records that have no moment are decided at `now`, in Unix
    seconds, and all of them at `at`, where given. Records of other objectives than `only`, where given, are skipped.
    """

    def __init__(
        self,
        engine: Engine,
        races: Mapping[tuple[str, str], Race],
        *,
        now: float,
        at: float | None = None,
        only: str | None = None,
        against: Engine | None = None,
    ) -> None:
        self._engine, self._races, self._against = engine, races, against
        self._now, self._at, self._only = now, at, only
        self._members = Members()
        self._counted: dict[int, Counted] = {}
        self._faults: dict[tuple[str, str | None, str], Fault] = {}
        self._pairs: dict[str, dict[tuple[int, int], int]] = {}
        self._outcomes: dict[int, Outcome] = {}
        self._skipped = self._named = 0

    def run(self, records: Iterable[Record]) -> None:
        """Replay all records. The counts are kept also if this ends with an exception."""
        decide, counted, is_new = self._engine.decide, self._counted, self._members.is_new
        now, at, only, against = self._now, self._at, self._only, self._against
        outcome: Outcome
        for number, objective, context, moment in records:
            if objective is None:
                self._fault(FaultKind.MALFORMED, None, context, number)
                continue
            if only is not None and objective != only:
                self._skipped += 1
                continue
            if at is not None:
                moment = at
            elif moment is None:
                moment = now
            try:
                outcome = decision = decide(objective, context, at=moment)
            except RequestError as error:
                outcome = self._refused(objective, error, number)
            else:
                # A decision is built once per revision and shared, so its identity is its key.
                entry = counted.get(id(decision)) or self._first(decision)
                entry.requests += 1
                race = entry.race
                if race is not None:
                    key = race.key(context)
                    if key is not None and is_new(race.prefix, key):
                        entry.members += 1
            if against is not None:
                self._compare(against, objective, context, moment, outcome)

    def tally(self) -> Tally:
        counted = sorted(
            self._counted.values(),
            key=lambda each: (each.decision.objective, -each.requests, each.decision.rule, each.decision.variant or ""),
        )
        faults = sorted(
            self._faults.values(), key=lambda each: (each.kind, -each.count, each.objective or "", each.detail)
        )
        moved = [self._moved(objective, pairs) for objective, pairs in sorted(self._pairs.items())]
        return Tally(tuple(counted), tuple(faults), tuple(moved), self._skipped)

    def _moved(self, objective: str, pairs: Mapping[tuple[int, int], int]) -> Moved:
        counts: dict[tuple[str, str, bool], int] = {}
        for ids, count in pairs.items():
            old, new = (self._outcomes[each] for each in ids)
            flow = target_text(old), target_text(new), is_retuned(old, new)
            counts[flow] = counts.get(flow, 0) + count
        ordered = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
        return Moved(objective, sum(counts.values()), tuple((*flow, count) for flow, count in ordered))

    def _first(self, decision: Decision) -> Counted:
        is_raced = decision.reason in ("split", "experiment")
        race = self._races.get((decision.objective, decision.rule)) if is_raced else None
        return self._counted.setdefault(id(decision), Counted(decision, race))

    def _refused(self, objective: str, error: RequestError, number: int) -> Outcome:
        match error:
            case ContextError():
                self._fault(FaultKind.CONTEXT, objective, str(error), number)
                return REFUSED
            case NoRuleError():
                self._fault(FaultKind.NO_RULE, objective, "no rule matches", number)
                return UNSERVED
            case _:
                self._fault(FaultKind.UNKNOWN_OBJECTIVE, None, self._unknown(objective), number)
                return NO_OBJECTIVE

    def _unknown(self, objective: str) -> str:
        fault = f"the rules have no objective {objective!r}"
        if (FaultKind.UNKNOWN_OBJECTIVE, None, fault) in self._faults:
            return fault
        if self._named >= NAMED_OBJECTIVES or _NAME.fullmatch(objective) is None:
            return "the rules have no objective of that name"
        self._named += 1
        return fault

    def _fault(self, kind: FaultKind, objective: str | None, detail: str, number: int) -> None:
        fault = self._faults.get((kind, objective, detail))
        if fault is None:
            fault = self._faults[kind, objective, detail] = Fault(kind, objective, detail)
        if len(fault.first_lines) < FIRST_LINES:
            fault.first_lines.append(number)
        fault.count += 1

    def _compare(self, against: Engine, objective: str, context: Any, moment: float, new: Outcome) -> None:
        old = outcome_of(against, objective, context, moment)
        if old is NO_OBJECTIVE and new is NO_OBJECTIVE:
            return
        pairs, pair = self._pairs.setdefault(objective, {}), (id(old), id(new))
        if pair not in pairs:
            self._outcomes[id(old)], self._outcomes[id(new)] = old, new
        pairs[pair] = pairs.get(pair, 0) + 1
