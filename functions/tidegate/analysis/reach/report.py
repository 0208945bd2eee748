"""Analyses rules that compile: every objective, and unused declarations in fleet.yaml and layers.yaml."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from tidegate.analysis.reach.findings import CheckFinding, author_error
from tidegate.analysis.reach.objective import Coverage, analyse_objective
from tidegate.finding_kinds import Severity
from tidegate.language.program import Program
from tidegate.language.source import Location
from tidegate.rules.engine import Engine

Places = Callable[[str, Location], tuple[str, int]]
"""Returns the file's name and the line of a path of keys in the file of a stem (`fleet`, `layers`)."""

DEFAULT_BUDGET = 200_000
"""Steps of a whole analysis. Ten thousand rules as people write them take some ten thousand; of the hardest, some ten
thousand take a second."""


@dataclass(frozen=True, slots=True)
class Analysis:
    """Result of an analysis.

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
        return tuple(finding for finding in self.findings if finding.severity is Severity.ERROR)


def analyse(
    program: Program,
    engine: Engine,
    *,
    at: float,
    places: Places,
    budget: int = DEFAULT_BUDGET,
    on_objective: Callable[[str, int], None] | None = None,
) -> Analysis:
    """Analyse rules that compile.

    Args:
        program: the rules, without an author's error.
        engine: the engine of the same rules: every counter-example is put to it before it is reported.
        at: Unix seconds; what ends before is over.
        places: finds the entries of fleet.yaml and layers.yaml (`tidegate.language.directory.places`).
        budget: how many steps may be taken, at least 1. What is undecided then is reported as undecided. The objectives share
            them equally; what one leaves is the next ones'.
        on_objective: callback with the name of the objective that comes next, and how many are done.
    """
    findings: list[CheckFinding] = []
    coverage: dict[str, Coverage] = {}
    taken = 0
    for number, objective in enumerate(program.objectives):
        if on_objective is not None:
            on_objective(objective.name, number)
        share = max((budget - taken) // (len(program.objectives) - number), 1)
        found, coverage[objective.name], steps = analyse_objective(objective, program.world, engine, at=at, steps=share)
        findings += found
        taken += steps
    findings += _unused(program, places)
    findings += [author_error(finding, "no-effect", objective) for objective, finding in program.no_effect]
    return Analysis(tuple(sorted(findings)), coverage, at, taken)


def _unused(program: Program, places: Places) -> Iterator[CheckFinding]:
    """Yield the aliases, models, layers and experiments that nothing uses, in the order of their files.

    A caller's `overrides` use the models that they name: these are loaded, as the caller may pin them.
    """
    world = program.world
    named = {target for objective in program.objectives for target in objective.targets}
    pinned = {target for caller in (program.callers or {}).values() for target in caller.overrides or ()}
    models = {target.partition("/")[0] for target in (*named, *pinned, *world.fleet.aliases.values())}
    for model in world.fleet.models:
        if model not in models:
            text = f"no rule, fallback, shadow, alias or caller's overrides name model {model!r}"
            hint = "delete it, or serve it; until then no shard loads it"
            yield _finding("unused-model", places("fleet", ("models", model)), text, hint)
    for alias, target in world.fleet.aliases.items():
        if alias not in named:
            text = f"no rule, fallback or shadow names alias {alias!r} ({target})"
            yield _finding("unused-alias", places("fleet", ("aliases", alias)), text, "delete it, or serve it")
    yield from _unused_experiments(program, places)


def _unused_experiments(program: Program, places: Places) -> Iterator[CheckFinding]:
    rules = [rule for objective in program.objectives for rule in objective.rules]
    run = {(each.layer, each.id) for rule in rules if (each := rule.experiment_of("layer")) is not None}
    for name, layer in program.world.layers.items():
        unused = [experiment for experiment in layer.experiments if (name, experiment) not in run]
        if len(unused) == len(layer.experiments):
            text = f"no rule runs an experiment of layer {name!r}"
            hint = "delete it, or write a rule for one of its experiments"
            yield _finding("unused-layer", places("layers", (name,)), text, hint)
            continue
        for experiment in unused:
            place = places("layers", (name, "experiments", experiment))
            text = f"experiment {experiment!r} owns buckets of layer {name!r}, and no rule runs it"
            hint = "delete it, so that others may have its buckets, or write its rule"
            yield _finding("unused-experiment", place, text, hint)


def _finding(kind: str, place: tuple[str, int], message: str, hint: str) -> CheckFinding:
    return CheckFinding(*place, "", "", kind, message, hint)
