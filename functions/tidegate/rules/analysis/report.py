"""The whole analysis of rules that compile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tidegate.rules.analysis.kinds import CheckFinding, no_effect
from tidegate.rules.analysis.of_objective import Coverage, analyse_objective
from tidegate.rules.analysis.references import Places, unused
from tidegate.rules.engine import Engine
from tidegate.rules.program import Program

DEFAULT_BUDGET = 200_000
"""Steps of a whole analysis. Ten thousand rules as people write them take some ten thousand; of the hardest, some ten
thousand take a second."""


@dataclass(frozen=True, slots=True)
class Analysis:
    """What an analysis found.

    `findings` are ordered by file and line; `coverage` is by objective; `at` is the time it was made for in Unix seconds;
    `steps` is how many steps it took.
    """

    findings: tuple[CheckFinding, ...]
    coverage: Mapping[str, Coverage]
    at: float
    steps: int

    @property
    def errors(self) -> tuple[CheckFinding, ...]:
        """The findings that should keep the rules from going live; the others are warnings."""
        return tuple(finding for finding in self.findings if finding.severity == "error")


def analyse(
    program: Program,
    engine: Engine,
    *,
    at: float,
    places: Places,
    budget: int = DEFAULT_BUDGET,
) -> Analysis:
    """Analyse rules that compile.

    Args:
        program: the rules, without an author's error.
        engine: the engine of the same rules: every counter-example is put to it before it is reported.
        at: Unix seconds; what ends before is over.
        places: where the entries of fleet.yaml and layers.yaml stand (`tidegate.rules.directory.places`).
        budget: how many steps may be taken, at least 1. What is undecided then is reported as undecided. The objectives share
            them equally; what one leaves is the next ones'.
    """
    findings: list[CheckFinding] = []
    coverage: dict[str, Coverage] = {}
    taken = 0
    for number, objective in enumerate(program.objectives):
        share = max((budget - taken) // (len(program.objectives) - number), 1)
        found = analyse_objective(objective, program.world, engine, at=at, steps=share)
        findings += found.findings
        coverage[objective.name] = found.coverage
        taken += found.steps
    findings += unused(program, places)
    findings += [no_effect(*each) for each in program.no_effect]
    return Analysis(tuple(sorted(findings)), coverage, at, taken)
