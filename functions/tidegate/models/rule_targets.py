"""Whether a folder of models can serve what rules name, and answers in the way in which the callers ask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from tidegate.analysis.reach.findings import CheckFinding
from tidegate.analysis.responses import NEEDLESS_STREAM, STREAM_INSTEAD, needless_streams, refused_by_infer
from tidegate.errors import ModelConfigError
from tidegate.language.program import Program
from tidegate.language.target_places import TargetPlace, TargetPlaces
from tidegate.models.catalog import TritonCatalog
from tidegate.models.folder import DirectoryFiles
from tidegate.rules import Engine


async def check_targets(program: Program, engine: Engine, rules: Path, models: Path) -> tuple[CheckFinding, ...]:
    """Check the targets of rules, shadows, fallbacks and callers' overrides against a folder that has all of their models.

    Only configs and the names of folders are read: whether a version's files load is for the check of the models.

    Args:
        program: the rules of the directory `rules`, without an author's error.
        engine: the engine of the same rules.
    """
    catalog = TritonCatalog(DirectoryFiles(models))
    unservable: dict[str, str] = {}
    decoupled: frozenset[str] = frozenset()
    for target in engine.targets():
        # One by one: a target that cannot be served hides what is wrong with the others.
        try:
            resolution = await catalog.resolve([target], {})
        except ModelConfigError as error:
            unservable[target.name] = str(error)
        except OSError as error:
            unservable[target.name] = f"{error.filename} cannot be read: {error.strerror}"
        else:
            decoupled |= resolution.decoupled
    places = TargetPlaces(rules)
    return (
        *_unservable(program, places, unservable),
        *_refused(program, engine, places, decoupled),
        *_needless(program, engine, places, decoupled),
    )


def _unservable(program: Program, places: TargetPlaces, unservable: Mapping[str, str]) -> Iterator[CheckFinding]:
    kind = "target-unservable"
    for target, message in unservable.items():
        if target in program.world.fleet.aliases:
            for place in places.of_alias(target):
                yield _finding(place, "", kind, message)
            continue
        for objective in program.objectives:
            if target in objective.targets:
                for place in places.of_objective(objective, target):
                    yield _finding(place, objective.name, kind, message)
        for place in places.of_overrides(target):
            yield _finding(place, "", kind, message)


def _refused(
    program: Program, engine: Engine, places: TargetPlaces, decoupled: frozenset[str]
) -> Iterator[CheckFinding]:
    refused = refused_by_infer(engine, decoupled)
    for objective in program.objectives:
        for target in refused.get(objective.name, ()):
            message = f"the responses of model {target.model!r} are decoupled, which infer refuses"
            for place in places.of_objective(objective, target.name):
                yield _finding(place, objective.name, "target-decoupled", message, STREAM_INSTEAD)


def _needless(
    program: Program, engine: Engine, places: TargetPlaces, decoupled: frozenset[str]
) -> Iterator[CheckFinding]:
    needless = needless_streams(engine, decoupled)
    for objective in program.objectives:
        if objective.name in needless:
            hint = "delete `responses`, or serve a model with decoupled responses"
            yield _finding(places.of_responses(objective), objective.name, "stream-of-one", NEEDLESS_STREAM, hint)


def _finding(place: TargetPlace, objective: str, kind: str, message: str, hint: str = "") -> CheckFinding:
    return CheckFinding(place.file, place.line, objective, place.rule, kind, message, hint, column=place.column)
