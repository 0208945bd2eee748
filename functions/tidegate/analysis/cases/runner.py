"""Runs cases against an engine: compares the decisions, and finds the rules and cells that no case reaches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tidegate.analysis.cases.reading import Case
from tidegate.errors import ContextError, NoRuleError, RequestError
from tidegate.language.compiler import emit
from tidegate.language.program import ObjectiveProgram, Program
from tidegate.language.words import did_you_mean
from tidegate.rules.decision import Decision, Explanation
from tidegate.rules.engine import Engine, load_bundle
from tidegate.rules.unknown_attributes import ALLOCATIONS


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A key of a case's `expect` with another actual value. `hint` is empty if there is nothing to suggest."""

    key: str
    expected: Any
    actual: Any
    hint: str = ""


@dataclass(frozen=True, slots=True)
class CaseResult:
    """Result of one case.

    `at` is the time that it ran at, in Unix seconds. `decision` is None where the context was refused (`refused` is True
    then) or no rule matches. `notes` do not fail the case.
    """

    case: Case
    at: float
    mismatches: tuple[Mismatch, ...]
    decision: Decision | None
    refused: bool = False
    notes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        return not self.mismatches

    def explained(self, engine: Engine) -> Explanation | None:
        """Return the trace of every rule for this case, made by each call; None: the context was refused."""
        return None if self.refused else engine.explain(self.case.objective, self.case.context, at=self.at)


Cell = tuple[str, str]
"""The id of a rule that runs an experiment, and the text of one of the experiment's cells."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Which rules of an objective, and which cells of its experiments, at least one passing case gets, and which none does;
    in the rules' order."""

    objective: str
    covered: tuple[str, ...]
    uncovered: tuple[str, ...]
    covered_cells: tuple[Cell, ...] = ()
    uncovered_cells: tuple[Cell, ...] = ()


def run_cases(
    engine: Engine, program: Program, cases: Iterable[Case], now: float, *, is_now_fixed: bool = False
) -> Iterator[CaseResult]:
    """Run cases of objectives that exist, one after the other.

    `now`, in Unix seconds, is the time of the cases that have none. `is_now_fixed`: it was asked for, so that these are not
    noted as depending on the clock.
    """
    clock = None if is_now_fixed else _Clock(program)
    rules = {objective.name: {rule.id for rule in objective.rules} for objective in program.objectives}
    for case in cases:
        yield _run(engine, case, now, rules[case.objective], clock)


def coverage(program: Program, results: Iterable[CaseResult]) -> tuple[Coverage, ...]:
    rules: set[tuple[str, str]] = set()
    cells: set[tuple[str, str, str]] = set()
    for result in results:
        if result.passed and result.decision is not None:
            name, decision = result.case.objective, result.decision
            rules.add((name, decision.rule))
            cells.add((name, decision.rule, str(decision.cell)))
    return tuple(
        Coverage(
            objective.name,
            tuple(rule.id for rule in objective.rules if (objective.name, rule.id) in rules),
            tuple(rule.id for rule in objective.rules if (objective.name, rule.id) not in rules),
            tuple(cell for cell in _cells(objective) if (objective.name, *cell) in cells),
            tuple(cell for cell in _cells(objective) if (objective.name, *cell) not in cells),
        )
        for objective in sorted(program.objectives, key=lambda each: each.name)
    )


def _cells(objective: ObjectiveProgram) -> Iterator[Cell]:
    """Yield every cell that a context can get. Only a caller can allocate one of weight 0."""
    for rule in objective.rules:
        experiment = rule.experiment
        if experiment is not None:
            is_callers = experiment.allocate == "caller"
            cells = (str(each.cell) for each in experiment.cells if each.weight or is_callers)
            yield from ((rule.id, cell) for cell in dict.fromkeys(cells))


class _Clock:
    """Finds the cases whose decision depends on the time: decides them by the same rules without time windows. The rule that
    decides without windows comes first of all that can match at any time, so the time matters exactly where that rule has a
    window."""

    def __init__(self, program: Program) -> None:
        self._windowed: set[tuple[str, str]] = set()
        timeless = []
        for objective in program.objectives:
            self._windowed.update((objective.name, rule.id) for rule in objective.rules if rule.active is not None)
            timeless.append(replace(objective, rules=tuple(rule._replace(active=None) for rule in objective.rules)))
        if self._windowed:
            self._timeless = load_bundle(emit(replace(program, objectives=tuple(timeless))))

    def matters(self, case: Case) -> bool:
        if case.at is not None or not self._windowed:
            return False
        try:
            return (case.objective, self._timeless.decide(case.objective, case.context).rule) in self._windowed
        except RequestError:
            return False


def _run(engine: Engine, case: Case, now: float, rules: set[str], clock: _Clock | None) -> CaseResult:
    at = now if case.at is None else case.at
    try:
        decision = engine.decide(case.objective, case.context, at=at)
    except ContextError as error:
        expected = case.expect.get("error")
        mismatch = Mismatch("error", expected, error.attribute, str(error))
        return CaseResult(case, at, () if expected == error.attribute else (mismatch,), None, refused=True)
    except NoRuleError:
        decision = None
    mismatches = tuple(_differences(case.expect, decision, rules))
    return CaseResult(case, at, mismatches, decision, notes=tuple(_notes(engine, case, clock)))


def _differences(expect: Mapping[str, Any], decision: Decision | None, rules: set[str]) -> Iterator[Mismatch]:
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
    """Return the value of a decision for a key of `expect`, in the form of `expect`."""
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
    """Return whether two values are equal; true is not 1."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        return expected.keys() == actual.keys() and all(_same(expected[key], actual[key]) for key in expected)
    return isinstance(expected, bool) == isinstance(actual, bool) and bool(expected == actual)


def _notes(engine: Engine, case: Case, clock: _Clock | None) -> Iterator[str]:
    objective = engine.objectives[case.objective]
    for name in () if objective.refuses_unknown else case.context:
        if name not in objective.attributes and name != ALLOCATIONS:
            hint = did_you_mean(name, set(objective.attributes), "attribute")
            yield f"the objective does not declare the attribute {name!r}, so it is ignored; {hint}"
    if clock is not None and clock.matters(case):
        yield "what it decides depends on the clock: give it `at`"
