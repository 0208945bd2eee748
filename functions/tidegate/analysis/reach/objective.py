"""The analysis of one objective, and the messages of its findings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.analysis.reach.axis import TooManyClassesError
from tidegate.analysis.reach.findings import CheckFinding, Cover
from tidegate.analysis.reach.reach import Reach, Reachability, RuleReach
from tidegate.analysis.reach.space import Space
from tidegate.analysis.reach.witness import find_example
from tidegate.analysis.space.outcomes import Example
from tidegate.language.program import ObjectiveProgram, World
from tidegate.language.semantics import resolve_target
from tidegate.rules.bundle import encode
from tidegate.rules.bundle.rule import Rule, encode_rule
from tidegate.rules.contract import Attribute
from tidegate.rules.engine import Engine
from tidegate.rules.sticky import key_value
from tidegate.rules.times import utc_text
from tidegate.rules.values import json_line

NAMED_RULES = 6
"""A message names so many of the rules that cover another; `covered_by` has all."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Whether every context of an objective is served at every time from the analysis' own on.

    `served` is None where it is undecided. `example` is there where it is False: the engine refused it.
    """

    served: bool | None
    example: Example | None = None


Found = tuple[list[CheckFinding], Coverage, int]
"""The findings of an objective, its coverage, and how many steps the analysis took."""


def analyse_objective(objective: ObjectiveProgram, world: World, engine: Engine, *, at: float, steps: int) -> Found:
    """Analyse one objective without an author's error in at most so many steps.

    The engine is that of the same rules and confirms counter-examples. What ends before `at` (Unix seconds) is over.
    """
    try:
        space = Space(objective, world, at)
    except TooManyClassesError:
        message = "its conditions distinguish more values of one attribute than the analysis looks at"
        hint = "shorten the lists of values, or make several objectives of it"
        finding = CheckFinding(objective.file, 0, objective.name, "", "undecided", message, hint)
        return [finding], Coverage(None), 0
    return _Analysis(space, world.fleet.aliases, engine, at, steps).result()


class _Analysis:
    def __init__(self, space: Space, aliases: Mapping[str, str], engine: Engine, at: float, steps: int) -> None:
        self._space, self._aliases, self._engine, self._at = space, aliases, engine, at
        self._objective = space.objective
        self._reachability = Reachability(space, steps)

    def result(self) -> Found:
        findings = [
            finding
            for rule, reach in zip(self._objective.rules, self._reachability.rules, strict=True)
            if (finding := self._of_rule(rule, reach)) is not None
        ]
        coverage, finding = self._coverage()
        if finding is not None:
            findings.append(finding)
        findings += self._of_splits()
        return findings, coverage, self._reachability.steps

    def _of_rule(self, rule: Rule, reach: RuleReach) -> CheckFinding | None:
        names = tuple(self._objective.rules[position].id for position in reach.covered_by)
        match reach.reach:
            case Reach.COVERED:
                return self._covered(rule, reach, names)
            case Reach.CONTRADICTORY:
                message = "no request can match this rule: its own conditions contradict each other"
                return self._finding(rule, "never-matches", message, "correct the conditions, or delete the rule")
            case Reach.OVER:
                return self._over(rule, names)
            case Reach.UNDECIDED:
                message = "whether a request can reach this rule was not decided"
                hint = "give a larger --budget; where that does not help, simplify the conditions of the rule and of those above"
                return self._finding(rule, "undecided", message, hint)
        return None

    def _covered(self, rule: Rule, reach: RuleReach, names: tuple[str, ...]) -> CheckFinding:
        cover: Cover | None = None
        if reach.covered_by:
            effects = [_effect(self._objective.rules[place], self._aliases) for place in reach.covered_by]
            cover = "same" if all(effect == _effect(rule, self._aliases) for effect in effects) else "other"
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
        until = None if rule.active is None else rule.active[1]
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
        found = None if outcome.hole is None else find_example(self._space, outcome.hole, self._at, self._engine)
        if found is None:
            message = "whether every context is served was not decided within the step budget"
            if outcome.hole is not None:
                message = "a context that no rule serves exists, and no key with its buckets was found to show it"
            hint = "give a larger --budget, or add a last rule without conditions"
            return Coverage(None), self._finding(None, "undecided", message, hint)
        when = f" at {utc_text(found.at)}" if found.has_windows else ""
        message = f"no rule serves the context {json_line(found.context)}{when}"
        hint = "add a last rule without conditions, or one for the contexts that are left"
        return Coverage(False, found), self._finding(None, "uncovered-context", message, hint)

    def _of_splits(self) -> Iterator[CheckFinding]:
        for number, rule in enumerate(self._objective.rules):
            split = rule.split or ()
            if len(split) < 2:
                continue
            first, weight = split[0]
            if not self._objective.contract.sticky_key:
                message = f"the objective has no sticky_key, so every request gets the first variant, {first!r}"
                yield self._finding(rule, "split-without-key", message, "declare a sticky_key, or write `serve`")
            elif weight == 0 and self._may_lack_key(number):
                message = f"a request whose sticky key is absent or empty gets {first!r}, whose weight is 0"
                hint = "write a variant with a positive weight first"
                yield self._finding(rule, "keyless-zero-weight", message, hint)

    def _may_lack_key(self, rule: int) -> bool:
        contract = self._objective.contract
        if any(_is_always_key(contract.attributes[name]) for name in contract.sticky_key):
            return False
        return self._reachability.is_reached_without_key(contract.sticky_key, rule)

    def _finding(
        self,
        rule: Rule | None,
        kind: str,
        message: str,
        hint: str,
        covered_by: tuple[str, ...] = (),
        cover: Cover | None = None,
    ) -> CheckFinding:
        of = self._objective
        line, name = (of.lines.get(rule.id, 0), rule.id) if rule else (0, "")
        return CheckFinding(of.file, line, of.name, name, kind, message, hint, covered_by, cover=cover)


def _effect(rule: Rule, aliases: Mapping[str, str]) -> tuple[Any, ...]:
    """Return a value that is equal for rules that serve alike: by the same model and version, with the same settings.

    A split with more than one variant draws by the rule's id, so that no two rules split alike.
    """
    action: Any
    if rule.experiment is not None:
        action = encode_rule(Rule("", (), experiment=rule.experiment))
    elif rule.split is not None and len(rule.split) > 1:
        action = rule.id
    else:
        action = [resolve_target(name, aliases) for name in rule.served()]
    return (
        action,
        [resolve_target(name, aliases) for name in rule.fallback],
        [(resolve_target(name, aliases), percent) for name, percent in rule.shadow],
        # To a model `true` is not 1, as to Python it is.
        encode(dict(rule.parameters)),
        rule.timeout_ms,
        rule.hedge_after_ms,
        rule.hedge_at,
        rule.fault,
    )


def _is_always_key(attribute: Attribute) -> bool:
    """Return whether every context that the objective accepts has a key in an attribute: an empty text is none."""
    if key_value(None, attribute.default) is not None:
        return True
    may_be_empty = attribute.type == "string" and (attribute.values is None or "" in attribute.values)
    return attribute.required and not may_be_empty


def _quoted(names: Sequence[str]) -> str:
    if not names:
        return "other rules"
    if len(names) > NAMED_RULES:
        return f"{', '.join(map(repr, names[:NAMED_RULES]))} and {len(names) - NAMED_RULES} more"
    *others, last = map(repr, names)
    return f"{', '.join(others)} and {last}" if others else last
