"""Replays recorded contexts and counts what they get, in memory that depends on the rules and not on the log."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tidegate.errors import ContextError, NoRuleError, RequestError
from tidegate.rules.compare.contests import REFUSED, UNSERVED, Outcome
from tidegate.rules.decision import Decision
from tidegate.rules.engine import Engine
from tidegate.rules.replay.members import Members
from tidegate.rules.replay.races import Configured
from tidegate.rules.replay.records import Record

FIRST_LINES = 5
UNKNOWN = "(no objective)"

NAMED_OBJECTIVES = 20
"""How many unknown objectives are reported by their names; the rest are counted together."""

FaultKind = Literal["malformed", "unknown_objective", "context", "no_rule"]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


@dataclass(slots=True)
class Fault:
    """Lines that got no decision, for one reason: how many, and the numbers of the first few.

    `objective` is empty where the line has none that the rules know. `detail` never holds a value of a context.
    """

    kind: FaultKind
    objective: str
    detail: str
    count: int = 0
    lines: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Counted:
    """How often a decision was made: for how many requests, and of how many members, each counted once.

    `race` is the split or experiment that made it, if one did. Members are known where the race has a key.
    """

    decision: Decision
    race: Configured | None
    requests: int = 0
    members: int = 0


@dataclass(frozen=True, slots=True)
class Flow:
    """How many contexts of an objective had an outcome in the earlier revision and have one now."""

    objective: str
    old: Outcome
    new: Outcome
    count: int


@dataclass(frozen=True, slots=True)
class Tally:
    """The counts of a replay; `skipped` are lines of other objectives than the one that was asked for."""

    counted: tuple[Counted, ...]
    faults: tuple[Fault, ...]
    flows: tuple[Flow, ...]
    skipped: int

    @property
    def decided(self) -> int:
        """How many contexts got a decision."""
        return sum(each.requests for each in self.counted)

    @property
    def lines(self) -> int:
        """How many lines were read, blank ones left out."""
        return self.decided + self.skipped + sum(fault.count for fault in self.faults)


class Replayer:
    """Replays records on an engine, and where given also on that of an earlier revision.

    Args:
        engine: decides.
        races: the splits and experiments of its revision, by (objective, rule).
        now: the moment of records that have none, in Unix seconds.
        at: the moment of all records, where given.
        only: skip the records of every other objective, where given.
        against: decides the same contexts, to be compared with.
    """

    def __init__(
        self,
        engine: Engine,
        races: Mapping[tuple[str, str], Configured],
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
        self._faults: dict[tuple[str, str, str], Fault] = {}
        self._pairs: dict[tuple[str, int, int], int] = {}
        self._outcomes: dict[int, Outcome] = {}
        self._skipped = self._named = 0

    def run(self, records: Iterable[Record]) -> None:
        """Replay all records. What has been counted stands also where this ends by an exception."""
        decide, counted, is_new = self._engine.decide, self._counted, self._members.is_new
        now, at, only, against = self._now, self._at, self._only, self._against
        outcome: Outcome
        for number, objective, context, moment in records:
            if objective is None:
                self._fault("malformed", "", context, number)
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
                # A decision is built once per revision and shared, so its identity stands for it.
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
        """What has been counted so far."""
        counted = sorted(
            self._counted.values(),
            key=lambda each: (each.decision.objective, -each.requests, each.decision.rule, each.decision.variant or ""),
        )
        faults = sorted(self._faults.values(), key=lambda each: (each.kind, -each.count, each.objective, each.detail))
        flows = (
            Flow(objective, self._outcomes[old], self._outcomes[new], count)
            for (objective, old, new), count in self._pairs.items()
        )
        return Tally(tuple(counted), tuple(faults), tuple(flows), self._skipped)

    def _first(self, decision: Decision) -> Counted:
        is_raced = decision.reason in ("split", "experiment")
        race = self._races.get((decision.objective, decision.rule)) if is_raced else None
        entry = self._counted[id(decision)] = Counted(decision, race)
        return entry

    def _refused(self, objective: str, error: RequestError, number: int) -> Outcome:
        match error:
            case ContextError():
                self._fault("context", objective, str(error), number)
                return REFUSED
            case NoRuleError():
                self._fault("no_rule", objective, "no rule matches", number)
                return UNSERVED
            case _:
                self._fault("unknown_objective", "", self._unknown(objective), number)
                return UNKNOWN

    def _unknown(self, objective: str) -> str:
        fault = f"the rules have no objective {objective!r}"
        if ("unknown_objective", "", fault) in self._faults:
            return fault
        if self._named >= NAMED_OBJECTIVES or _NAME.fullmatch(objective) is None:
            return "the rules have no objective of that name"
        self._named += 1
        return fault

    def _fault(self, kind: FaultKind, objective: str, detail: str, number: int) -> None:
        fault = self._faults.get((kind, objective, detail))
        if fault is None:
            fault = self._faults[kind, objective, detail] = Fault(kind, objective, detail)
        if len(fault.lines) < FIRST_LINES:
            fault.lines.append(number)
        fault.count += 1

    def _compare(self, against: Engine, objective: str, context: Any, moment: float, new: Outcome) -> None:
        old: Outcome
        try:
            old = against.decide(objective, context, at=moment)
        except ContextError:
            old = REFUSED
        except NoRuleError:
            old = UNSERVED
        except RequestError:
            if new is UNKNOWN:
                return
            old = UNKNOWN
        pair = (objective, id(old), id(new))
        if pair not in self._pairs:
            self._pairs[pair] = 0
            self._outcomes[id(old)], self._outcomes[id(new)] = old, new
        self._pairs[pair] += 1
