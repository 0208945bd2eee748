"""`tidegate models check`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from tidegate.cli.columns import say
from tidegate.cli.models.options import IMAGES, MODELS, accepted_json, count, open_repository, print_findings
from tidegate.cli.rules.compiled import sound_program
from tidegate.cli.rules.options import AS_JSON, DIRECTORY, print_json
from tidegate.cli.sarif import SARIF, write_sarif
from tidegate.rules.program import Program
from tidegate.rules.semantics import resolve_target
from tidegate.triton.checks import Judged, Repository, judge_models
from tidegate.triton.checks.blast_radius import BlastRadius, blast_radius
from tidegate.triton.checks.kinds import KINDS
from tidegate.triton.images.serving import images_of_models

MOST_OF_A_KIND = 5


@click.command()
@click.argument("directory", type=DIRECTORY)
@MODELS
@click.option(
    "--rules",
    "rules_directory",
    type=DIRECTORY,
    help="Name the objectives that each model serves, too, and check for the images of its shards.",
)
@IMAGES
@SARIF
@click.option("--verbose", "-v", is_flag=True, help="List every finding, and what a change of each model would touch.")
@AS_JSON
def check(
    directory: Path,
    models: tuple[str, ...],
    rules_directory: Path | None,
    images: tuple[str, ...],
    sarif_file: Path | None,
    verbose: bool,
    as_json: bool,
) -> None:
    """Check models by their files alone, with everything that they call: all of DIRECTORY, or those named.

    Nothing is started, imported or written. Each finding has its file, line and kind (docs/model-repository.md); errors come
    first, and of many warnings of a kind the first few. What a change of the models that are named, or with --verbose of
    any, would touch is reported too. Exit code 1: there is a finding, be it an error or a warning that
    DIRECTORY/accepted.yaml does not accept.
    """
    repository = open_repository(directory, models, images)
    program = None if rules_directory is None else sound_program(rules_directory, as_json=as_json)
    if program is not None and rules_directory is not None and not images:
        repository = Repository(directory, images_of_models(program.world, rules_directory, directory))
    names = repository.closure(models or repository.names())
    judged = judge_models(repository, models or repository.names(), with_git=True)
    findings = judged.findings
    touched = blast_radius(repository, names, {} if program is None else objectives_by_model(program))
    if sarif_file is not None:
        write_sarif(sarif_file, "models check", KINDS, findings, directory)
    if as_json:
        print_json(_as_dict(repository, judged, touched))
    else:
        _show(repository, names, judged, touched, program is not None, verbose=verbose, noted=verbose or bool(models))
    if findings:
        raise click.exceptions.Exit(1)


def objectives_by_model(program: Program) -> Mapping[str, frozenset[str]]:
    """The objectives whose rules serve, shadow or fall back to each model."""
    found: dict[str, set[str]] = {}
    for objective in program.objectives:
        for target in objective.targets:
            found.setdefault(resolve_target(target, program.world.aliases)[0], set()).add(objective.name)
    return {model: frozenset(names) for model, names in found.items()}


def _show(
    repository: Repository,
    names: Sequence[str],
    judged: Judged,
    touched: Sequence[BlastRadius],
    with_rules: bool,
    *,
    verbose: bool,
    noted: bool,
) -> None:
    print_findings(judged, len(names), most=None if verbose else MOST_OF_A_KIND)
    for each in touched if noted else ():
        if each.ensembles or (with_rules and each.objectives):
            say(_words(each, with_rules))
    if not judged.findings:
        ensembles = sum(1 for name in names if (model := repository.model(name)) is not None and model.is_ensemble)
        versions = sum(len(model.versions) for name in names if (model := repository.model(name)) is not None)
        say(
            f"ok: {count(len(names), 'model')} ({count(ensembles, 'ensemble')}), {count(versions, 'version')}, no findings"
        )


def _words(touched: BlastRadius, with_rules: bool) -> str:
    parts = []
    if touched.ensembles:
        parts.append(f"{count(len(touched.ensembles), 'ensemble')}: {', '.join(touched.ensembles)}")
    if with_rules and touched.objectives:
        parts.append(f"{count(len(touched.objectives), 'objective')}: {', '.join(touched.objectives)}")
    return f"a change of {touched.model} touches {'; '.join(parts)}"


def _as_dict(repository: Repository, judged: Judged, touched: Sequence[BlastRadius]) -> dict[str, Any]:
    described = []
    for each in touched:
        model = repository.model(each.model)
        described.append(
            {
                "name": each.model,
                "backend": "" if model is None else model.backend,
                "versions": [] if model is None else list(model.versions),
                "steps": list(repository.steps(each.model)),
                "used_by": list(each.ensembles),
                "objectives": list(each.objectives),
            }
        )
    return {
        "ok": not judged.findings,
        "findings": [finding.as_dict() for finding in judged.findings],
        "accepted": accepted_json(judged),
        "models": described,
    }
