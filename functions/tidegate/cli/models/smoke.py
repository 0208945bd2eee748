"""`tidegate models smoke`."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from tidegate.cli.columns import say
from tidegate.cli.models.check import objectives_by_model
from tidegate.cli.models.options import MODELS, accepted_json, open_repository, print_findings
from tidegate.cli.rules.compiled import sound_program
from tidegate.cli.rules.options import AS_JSON, DIRECTORY, print_json
from tidegate.settings import Settings
from tidegate.triton.checks.accepted import Judged, judge
from tidegate.triton.checks.kinds import SMOKED
from tidegate.triton.installation import find_installation
from tidegate.triton.smoke import ModelSmoke, SmokeReport, smoke


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

    Every row of DIRECTORY/MODEL/samples/*.json is asked alone and in a batch of 3. What Triton itself does not check is:
    declared types and shapes, one row for each row, finite numbers, and that a row's answer does not depend on the rows
    beside it. An ensemble's steps are asked one by one, too. Without samples, inputs are made from the config. The server
    is gone afterwards, however it went. Exit code 1: there is a finding that DIRECTORY/accepted.yaml does not accept.
    """
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
    report = asyncio.run(smoke(directory, tuple(dict.fromkeys(models)), installation, timeout_s))
    tried = {seen.model for seen in report.models}
    judged = judge(directory, sorted(report.findings), tried, [kind.name for kind in SMOKED])
    if as_json:
        print_json(_as_dict(report, judged))
    else:
        for seen in report.models:
            say(_words(seen))
        print_findings(judged, len(report.models))
    if judged.findings:
        raise click.exceptions.Exit(1)


def _as_dict(report: SmokeReport, judged: Judged) -> dict[str, object]:
    return {
        "ok": not judged.findings,
        "findings": [finding.as_dict() for finding in judged.findings],
        "accepted": accepted_json(judged),
        "models": [seen.as_dict() for seen in report.models],
    }


def _words(seen: ModelSmoke) -> str:
    if seen.load_ms is None:
        return f"{seen.model}: not loaded"
    parts = [f"loaded in {seen.load_ms / 1000:.1f} s", f"{seen.samples} sample{'' if seen.samples == 1 else 's'}"]
    if seen.requests:
        parts.append(f"{seen.requests} requests")
    if seen.p50_ms is not None:
        parts.append(f"p50 {seen.p50_ms:.1f} ms")
    return f"{seen.model}: {', '.join([*parts, *seen.notes])}"
