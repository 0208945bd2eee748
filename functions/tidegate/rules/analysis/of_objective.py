"""The analysis of one objective, and the words for what it finds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tidegate.errors import NoRuleError, RequestError
from tidegate.rules.analysis.axis import TooManyClassesError
from tidegate.rules.analysis.effects import cover_of
from tidegate.rules.analysis.kinds import CheckFinding, Cover
from tidegate.rules.analysis.reach import Reach, Reachability, RuleReach
from tidegate.rules.analysis.space import Space
from tidegate.rules.analysis.witness import Example, example
from tidegate.rules.contract import Attribute
from tidegate.rules.engine import Engine
from tidegate.rules.program import ObjectiveProgram, Rule, World
from tidegate.rules.sticky import key_value
from tidegate.rules.times import utc_text

NAMED_RULES = 6
"""A message names so many of the rules that cover another; `covered_by` has all."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Whether every context of an objective is served at every time from the analysis' own on.

    `served` is None where it is undecided. `example` is there where it is False: the engine refused it.
    """

    served: bool | None
    example: Example | None = None


@dataclass(frozen=True, slots=True)
class ObjectiveAnalysis:
    """What the analysis of one objective found, and how many steps it took."""

    findings: Sequence[CheckFinding]
    coverage: Coverage
    steps: int


def analyse_objective(
    objective: ObjectiveProgram, world: World, engine: Engine, *, at: float, steps: int
) -> ObjectiveAnalysis:
    """Analyse one objective.

    Args:
        objective: the objective, without an author's error.
        world: what its rules refer to.
        engine: the engine of the same rules, to confirm a counter-example.
        at: Unix seconds; what ends before is over.
        steps: how many steps may be taken.
    """
    try:
        space = Space(objective, world, at)
    except TooManyClassesError:
        message = "its conditions distinguish more values of one attribute than the analysis looks at"
        hint = "shorten the lists of values, or make several objectives of it"
        return ObjectiveAnalysis([_finding(objective, None, "undecided", message, hint)], Coverage(None), 0)
    return _Analysis(space, world.aliases, engine, at, steps).result()


class _Analysis:
    def __init__(self, space: Space, aliases: Mapping[str, str], engine: Engine, at: float, steps: int) -> None:
        self._space, self._aliases, self._engine, self._at = space, aliases, engine, at
        self._objective = space.objective
        self._reachability = Reachability(space, steps)

    def result(self) -> ObjectiveAnalysis:
        findings = [
            finding
            for rule, reach in zip(self._objective.rules, self._reachability.rules, strict=True)
            if (finding := self._of_rule(rule, reach)) is not None
        ]
        coverage, finding = self._coverage()
        if finding is not None:
            findings.append(finding)
        findings += self._of_splits()
        return ObjectiveAnalysis(findings, coverage, self._reachability.steps)

    def _of_rule(self, rule: Rule, reach: RuleReach) -> CheckFinding | None:
        names = tuple(self._objective.rules[position].id for position in reach.covered_by)
        match reach.reach:
            case Reach.COVERED:
                return self._covered(rule, reach, names)
            case Reach.CONTRADICTORY:
                return self._finding(
                    rule,
                    "never-matches",
                    "no request can match this rule: its own conditions contradict each other",
                    "correct the conditions, or delete the rule",
                )
            case Reach.OVER:
                return self._over(rule, names)
            case Reach.UNDECIDED:
                return self._finding(
                    rule,
                    "undecided",
                    "whether a request can reach this rule was not decided",
                    "give a larger --budget; where that does not help, simplify the conditions of the rule and of those above",
                )
        return None

    def _covered(self, rule: Rule, reach: RuleReach, names: tuple[str, ...]) -> CheckFinding:
        cover = cover_of(self._objective, rule, reach.covered_by, self._aliases)
        are_many = len(names) > 1
        together, verb = (" together", "take") if are_many else ("", "takes")
        message = f"no request can reach this rule: {_quoted(names)}{together} {verb} all that it matches"
        if not reach.minimal:
            message += " (perhaps without some of them)"
        if cover == "same":
            message += f" and {'do' if are_many else 'does'} the same, so it is redundant"
            hint = "delete it: nothing changes"
        else:
            does = "not all of them do" if are_many else "does not do"
            message += f", and {does} what it does"
            where = "them" if are_many else "that one"
            hint = f"move the rule above {where}, narrow the rules above, or delete it if what happens now is right"
        return self._finding(rule, "unreachable-rule", message, hint, names, cover)

    def _over(self, rule: Rule, names: tuple[str, ...]) -> CheckFinding:
        until = rule.body.get("active", (None, None))[1]
        if until is not None and until <= self._at:
            message = f"the rule's time window is over since {utc_text(until)}"
            return self._finding(rule, "window-over", message, "delete the rule, or set a later `until`")
        verb = "take" if len(names) > 1 else "takes"
        message = (
            f"the rule could be reached only at times that are over; now {_quoted(names)} {verb} all that it matches"
        )
        return self._finding(rule, "window-over", message, "delete the rule", names)

    def _coverage(self) -> tuple[Coverage, CheckFinding | None]:
        outcome = self._reachability.hole
        if outcome.hole is None and outcome.decided:
            return Coverage(True), None
        found = None if outcome.hole is None else example(self._space, outcome.hole, self._at, self._unserved)
        if found is None:
            message = "whether every context is served was not decided within the step budget"
            if outcome.hole is not None:
                message = "a context that no rule serves exists, and no key with its buckets was found to show it"
            hint = "give a larger --budget, or add a last rule without conditions"
            return Coverage(None), self._finding(None, "undecided", message, hint)
        when = f" at {utc_text(found.at)}" if self._space.times is not None else ""
        message = f"no rule serves the context {found.text()}{when}"
        hint = "add a last rule without conditions, or one for the contexts that are left"
        return Coverage(False, found), self._finding(None, "uncovered-context", message, hint)

    def _unserved(self, context: Mapping[str, Any], at: float) -> bool:
        try:
            self._engine.decide(self._objective.name, context, at=at)
        except NoRuleError:
            return True
        except RequestError:
            return False
        return False

    def _of_splits(self) -> Iterator[CheckFinding]:
        for number, rule in enumerate(self._objective.rules):
            split = rule.body.get("split", ())
            if len(split) < 2:
                continue
            first, weight = split[0]
            if not self._objective.sticky_key:
                message = f"the objective has no sticky_key, so every request gets the first variant, {first!r}"
                yield self._finding(rule, "split-without-key", message, "declare a sticky_key, or write `serve`")
            elif weight == 0 and self._may_lack_key(number):
                message = f"a request whose sticky key is absent or empty gets {first!r}, whose weight is 0"
                hint = "write a variant with a positive weight first"
                yield self._finding(rule, "keyless-zero-weight", message, hint)

    def _may_lack_key(self, rule: int) -> bool:
        if any(_is_always_key(self._objective.attributes[name]) for name in self._objective.sticky_key):
            return False
        return self._reachability.is_reached_without_key(self._objective.sticky_key, rule)

    def _finding(
        self,
        rule: Rule | None,
        kind: str,
        message: str,
        hint: str,
        covered_by: tuple[str, ...] = (),
        cover: Cover | None = None,
    ) -> CheckFinding:
        found = _finding(self._objective, rule, kind, message, hint)
        return replace(found, covered_by=covered_by, cover=cover)


def _finding(objective: ObjectiveProgram, rule: Rule | None, kind: str, message: str, hint: str) -> CheckFinding:
    line, name = (rule.line, rule.id) if rule else (0, "")
    return CheckFinding(objective.file, line, objective.name, name, kind, message, hint)


def _is_always_key(attribute: Attribute) -> bool:
    """Whether every context that the objective accepts has a key in an attribute: an empty text is none."""
    if key_value(None, attribute.default) is not None:
        return True
    may_be_empty = attribute.type == "string" and (attribute.values is None or "" in attribute.values)
    return attribute.required and not may_be_empty


def _quoted(names: Sequence[str]) -> str:
    """Some of the names in words."""
    if not names:
        return "other rules"
    if len(names) > NAMED_RULES:
        return f"{', '.join(map(repr, names[:NAMED_RULES]))} and {len(names) - NAMED_RULES} more"
    *others, last = map(repr, names)
    return f"{', '.join(others)} and {last}" if others else last
