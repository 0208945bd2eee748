"""`tidegate models check|smoke|graph`: models by their files, on a scratch server, and as a picture."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tidegate.cli import progress
from tidegate.cli.columns import count, say
from tidegate.cli.findings import SARIF, write_sarif
from tidegate.cli.json_output import AS_JSON, print_json
from tidegate.cli.models.options import IMAGES, MODELS, judged_json, open_repository, print_findings
from tidegate.cli.options import DIRECTORY, OUTPUT, deliver
from tidegate.cli.rules.named import sound_program
from tidegate.finding_kinds import Severity
from tidegate.language.program import Program
from tidegate.language.semantics import resolve_target
from tidegate.model_layout import CONFIG
from tidegate.models.dag import dag_mermaid, dag_of
from tidegate.models.images.serving import images_of_models
from tidegate.models.lint.accepted import Judged, judge
from tidegate.models.lint.checker import BlastRadius, blast_radius, check_closure, judge_models
from tidegate.models.lint.folder import Repository
from tidegate.models.lint.kinds import KINDS, SMOKED
from tidegate.settings import Settings

if TYPE_CHECKING:
    from tidegate.models.smoke.runner import ModelSmoke

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

    Nothing is started, imported or written. Each finding has its file, line and kind (docs/findings.md); errors come
    first, and of many warnings of a kind the first few. What a change of the models that are named, or with --verbose of
    any, would touch is reported too. Exit code 1: there is a finding, be it an error or a warning that
    DIRECTORY/accepted.yaml does not accept.
    """
    repository = open_repository(directory, models, images)
    program = None if rules_directory is None else sound_program(rules_directory, as_json=as_json)
    if program is not None and rules_directory is not None and not images:
        repository = Repository(directory, images_of_models(program.world, rules_directory, directory))
    names = sorted(repository.closure(models or repository.names()))
    progress.note(f"checking {count(len(names), 'model')}")
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
    """Return the objectives whose rules serve, shadow or fall back to each model."""
    found: dict[str, set[str]] = {}
    for objective in program.objectives:
        for target in objective.targets:
            found.setdefault(resolve_target(target, program.world.fleet.aliases)[0], set()).add(objective.name)
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
        known = [model for name in names if (model := repository.model(name)) is not None]
        ensembles = count(sum(model.is_ensemble for model in known), "ensemble")
        versions = count(sum(len(model.versions) for model in known), "version")
        say(f"ok: {count(len(names), 'model')} ({ensembles}), {versions}, no findings")


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
    return {"ok": not judged.findings, **judged_json(judged), "models": described}


@click.command("smoke")
@click.argument("directory", type=DIRECTORY)
@MODELS
@click.option(
    "--rules", "rules_directory", type=DIRECTORY, help="In place of MODEL: the models that these rules serve."
)
@click.option(
    "--timeout-s",
    type=click.FloatRange(0.1, 3600),
    default=60.0,
    show_default=True,
    help="Longest load of one model, and longest answer, in seconds.",
)
@AS_JSON
def smoke_(
    directory: Path, models: tuple[str, ...], rules_directory: Path | None, timeout_s: float, as_json: bool
) -> None:
    """Load models with everything that they call on a scratch Triton, and judge their answers to their golden requests: all
    of DIRECTORY, those named, or those that rules serve.

    Sends every row of DIRECTORY/MODEL/samples/*.json alone and in a batch of 3, to the steps of an ensemble too, and checks
    what Triton does not: declared types and shapes, one output row per input row, finite numbers, and that a row's answer
    does not depend on the other rows. Without samples, inputs are generated from the config. The server is always stopped
    afterwards. Exit code 1: there is a finding that DIRECTORY/accepted.yaml does not accept.
    """
    from tidegate.models.smoke.runner import smoke
    from tidegate.triton.installation import find_installation

    if models and rules_directory is not None:
        raise click.UsageError("name models, or the rules that serve them, not both")
    repository = open_repository(directory, models)
    if rules_directory is not None:
        served = objectives_by_model(sound_program(rules_directory, as_json=as_json))
        models = tuple(name for name in repository.names() if name in served)
    else:
        models = models or tuple(repository.names())
    settings = Settings.from_environment()
    installation = find_installation(settings.triton_home, settings.cache_dir)
    models = tuple(dict.fromkeys(models))

    def on_model(name: str, done: int) -> None:
        progress.note(f"trying {name}", done, len(models))

    report = asyncio.run(smoke(directory, models, installation, timeout_s, on_model))
    tried = {seen.model for seen in report.models}
    judged = judge(directory, sorted(report.findings), tried, [kind.name for kind in SMOKED])
    if as_json:
        smoked = [seen.as_dict() for seen in report.models]
        print_json({"ok": not judged.findings, **judged_json(judged), "models": smoked})
    else:
        for seen in report.models:
            say(_smoke_words(seen))
        print_findings(judged, len(report.models))
    if judged.findings:
        raise click.exceptions.Exit(1)


def _smoke_words(seen: ModelSmoke) -> str:
    if seen.load_ms is None:
        return f"{seen.model}: not loaded"
    parts = [f"loaded in {seen.load_ms / 1000:.1f} s", f"{seen.samples} sample{'' if seen.samples == 1 else 's'}"]
    if seen.requests:
        parts.append(f"{seen.requests} requests")
    if seen.p50_ms is not None:
        parts.append(f"p50 {seen.p50_ms:.1f} ms")
    return f"{seen.model}: {', '.join([*parts, *seen.notes])}"


@click.command()
@click.argument("directory", type=DIRECTORY)
@click.argument("model", metavar="MODEL")
@OUTPUT
@AS_JSON
def graph(directory: Path, model: str, output: Path | None, as_json: bool) -> None:
    """Draw MODEL, its inputs, steps and outputs, as Mermaid text, which GitHub shows as a diagram.

    A model whose config has errors is not drawn: they are printed instead. Exit code 1: there are errors.
    """
    repository = open_repository(directory, (model,))
    errors = [
        finding
        for finding in check_closure(repository, (model,))
        if finding.severity is Severity.ERROR and finding.file == f"{model}/{CONFIG}"
    ]
    folder = repository.model(model)
    if errors or folder is None:
        if as_json:
            print_json({"ok": False, "findings": [finding.as_dict() for finding in errors]})
        else:
            print_findings(Judged(tuple(errors)), 1, err=True)
        raise click.exceptions.Exit(1)
    deliver(dag_mermaid(dag_of(folder, repository)), output, as_json=as_json)
