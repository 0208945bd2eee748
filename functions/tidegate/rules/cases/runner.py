"""Runs cases against an engine: what each decided, where that differs from what was expected, and which rules no case
reaches. Pure: the engine, the cases and the time come in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.errors import ContextError, NoRuleError
from tidegate.rules.cases.reading import Case
from tidegate.rules.decision import Decision, Explanation
from tidegate.rules.engine import Engine
from tidegate.rules.program import ObjectiveProgram, Program
from tidegate.rules.shape import did_you_mean


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One key of a case's `expect` that came out differently. `hint` is empty where there is nothing to suggest."""

    key: str
    expected: Any
    actual: Any
    hint: str = ""


@dataclass(frozen=True, slots=True)
class CaseResult:
    """What came of one case. `explanation` is None where the context was refused; `notes` do not fail the case."""

    case: Case
    mismatches: tuple[Mismatch, ...]
    explanation: Explanation | None
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """Whether everything expected came out."""
        return not self.mismatches


@dataclass(frozen=True, slots=True)
class Coverage:
    """Which rules of an objective are decided by at least one passing case, and which are not, in the rules' order."""

    objective: str
    covered: tuple[str, ...]
    uncovered: tuple[str, ...]


def run_cases(engine: Engine, program: Program, cases: Sequence[Case], now: float) -> Iterator[CaseResult]:
    """Run cases, one after the other.

    Args:
        engine: the compiled rules.
        program: the same rules in normal form.
        cases: cases of objectives that exist.
        now: the time of the cases that say none, in Unix seconds.
    """
    moments = {objective.name: tuple(_moments(objective)) for objective in program.objectives}
    for case in cases:
        yield _run(engine, case, now, moments[case.objective])


def coverage(program: Program, results: Sequence[CaseResult]) -> tuple[Coverage, ...]:
    """The rules that the cases reach, by objective."""
    decided = {
        (result.case.objective, result.explanation.decision.rule)
        for result in results
        if result.passed and result.explanation is not None and result.explanation.decision is not None
    }
    return tuple(
        Coverage(
            objective.name,
            tuple(rule.id for rule in objective.rules if (objective.name, rule.id) in decided),
            tuple(rule.id for rule in objective.rules if (objective.name, rule.id) not in decided),
        )
        for objective in sorted(program.objectives, key=lambda each: each.name)
    )


def _moments(objective: ObjectiveProgram) -> Iterator[float]:
    """A moment on both sides of every edge of a time window of the objective."""
    edges = {edge for rule in objective.rules for edge in rule.body.get("active", ()) if edge is not None}
    for edge in sorted(edges):
        yield edge - 0.001
        yield edge


def _run(engine: Engine, case: Case, now: float, moments: tuple[float, ...]) -> CaseResult:
    at = now if case.at is None else case.at
    try:
        explanation = engine.explain(case.objective, case.context, at=at)
    except ContextError as error:
        return CaseResult(case, tuple(_refused(case, error)), None)
    rules = [trace.rule for trace in explanation.rules]
    return CaseResult(
        case,
        tuple(_differences(case.expect, explanation.decision, rules)),
        explanation,
        tuple(_notes(engine, case, moments)),
    )


def _refused(case: Case, error: ContextError) -> Iterator[Mismatch]:
    if case.expect.get("error") != error.attribute:
        yield Mismatch("error", case.expect.get("error"), error.attribute, str(error))


def _differences(expect: Mapping[str, Any], decision: Decision | None, rules: list[str]) -> Iterator[Mismatch]:
    if "error" in expect:
        yield Mismatch("error", expect["error"], None, "the context is accepted")
        return
    rule = expect.get("rule")
    hint = "" if rule is None or rule in rules else "no such rule: " + did_you_mean(rule, rules, "rule")
    if decision is None:
        if rule is not None or "rule" not in expect:
            yield Mismatch("rule", rule or "any", None, hint or "no rule matches")
        return
    for key, expected in expect.items():
        actual = _actual(decision, key, expected)
        if not _same(expected, actual):
            yield Mismatch(key, expected, actual, hint if key == "rule" else "")


def _actual(decision: Decision, key: str, expected: Any) -> Any:
    """What a decision says for a key of `expect`, in the form of `expect`."""
    match key:
        case "target":
            return decision.target.name
        case "fallbacks":
            return [target.name for target in decision.fallbacks]
        case "shadows":
            percents = {shadow.target.name: shadow.percent for shadow in decision.shadows}
            return percents if isinstance(expected, dict) else sorted(percents)
        case "parameters":
            return dict(decision.parameters)
        case "shards":
            return list(decision.shards)
        case "cell":
            return None if decision.cell is None else str(decision.cell)
        case _:
            return getattr(decision, key)


def _same(expected: Any, actual: Any) -> bool:
    """Equal, where true is not 1."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        return expected.keys() == actual.keys() and all(_same(expected[key], actual[key]) for key in expected)
    return isinstance(expected, bool) == isinstance(actual, bool) and bool(expected == actual)


def _notes(engine: Engine, case: Case, moments: tuple[float, ...]) -> Iterator[str]:
    attributes = engine.objectives[case.objective].attributes
    for name in case.context:
        if name not in attributes and name != "allocations":
            hint = did_you_mean(name, set(attributes), "attribute")
            yield f"the objective does not declare the attribute {name!r}, so it is ignored; {hint}"
    if case.at is None and len({_outcome(engine, case, at) for at in moments}) > 1:
        yield "what it decides depends on the clock: give it `at`"


def _outcome(engine: Engine, case: Case, at: float) -> str | None:
    try:
        return engine.decide(case.objective, case.context, at=at).rule
    except NoRuleError:
        return None
