"""`tidegate rules check|compile|graph`: what is wrong with rules, and rules as a bundle and as a picture."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from tidegate.analysis.pictures.mermaid import mermaid
from tidegate.analysis.reach.findings import KINDS, author_error
from tidegate.analysis.reach.report import DEFAULT_BUDGET, Analysis, analyse
from tidegate.cli import progress
from tidegate.cli.columns import count, say
from tidegate.cli.findings import SARIF, check_objective, write_sarif
from tidegate.cli.json_output import AS_JSON, print_json
from tidegate.cli.options import AT, DIRECTORY, FILE, OUTPUT, deliver, write_file
from tidegate.cli.rules.named import named_rules
from tidegate.cli.stacks import STACK
from tidegate.language.compiler import emit
from tidegate.language.directory import places, read_directory
from tidegate.rules import Engine, load_bundle
from tidegate.rules.bundle import revision_json, short_revision
from tidegate.rules.times import utc_text


@click.command()
@click.argument("directory", type=DIRECTORY)
@AT
@click.option(
    "--budget",
    type=click.IntRange(min=1),
    default=DEFAULT_BUDGET,
    show_default=True,
    help="How many steps the analysis may take. What is undecided then is an error.",
)
@click.option(
    "--models",
    type=DIRECTORY,
    help="Triton model repository with every model that the rules serve: check that it has each target, too.",
)
@click.option("--strict", is_flag=True, help="Exit with 1 on warnings too.")
@SARIF
@AS_JSON
def check(
    directory: Path,
    at: float | None,
    budget: int,
    models: Path | None,
    strict: bool,
    sarif_file: Path | None,
    as_json: bool,
) -> None:
    """Check the rules: errors, rules that no request can reach, contexts that no rule serves, what is unused.

    With --models also targets that the folder of models cannot serve, or that answer in another way than callers ask.
    Every finding has its file, line and kind (docs/findings.md). Exit code 1: there is an error, or with --strict a
    warning.
    """
    if models is not None:
        # It loads Triton's client, which a check of the rules alone does without.
        from tidegate.cli.models.options import open_repository

        open_repository(models, hint="--models")
    moment = time.time() if at is None else at
    progress.note(f"reading {directory}")
    program, errors = read_directory(directory)
    engine: Engine | None = None
    analysis = Analysis(tuple(map(author_error, errors)), {}, moment, 0)
    if not errors:
        engine = load_bundle(emit(program))
        objectives = len(program.objectives)
        analysis = analyse(
            program,
            engine,
            at=moment,
            places=places(directory),
            budget=budget,
            on_objective=lambda name, done: progress.note(f"proving {name}", done, objectives),
        )
        if models is not None:
            from tidegate.models.rule_targets import check_targets

            progress.note(f"checking the targets in {models}")
            found = asyncio.run(check_targets(program, engine, directory, models))
            analysis = replace(analysis, findings=tuple(sorted((*analysis.findings, *found))))
    failed = bool(analysis.findings if strict else analysis.errors)
    if sarif_file is not None:
        write_sarif(sarif_file, "rules check", KINDS, analysis.findings, directory)
    if as_json:
        print_json(_as_dict(analysis, engine, ok=not failed))
    else:
        _show(analysis, engine)
    if failed:
        raise click.exceptions.Exit(1)


def _show(analysis: Analysis, engine: Engine | None) -> None:
    for finding in analysis.findings:
        say(str(finding))
    errors, warnings = len(analysis.errors), len(analysis.findings) - len(analysis.errors)
    counts = f"{count(errors, 'error')}, {count(warnings, 'warning')}"
    if engine is None:
        say(f"{counts}; nothing else is checked until the rules compile")
        return
    served = sum(coverage.served is True for coverage in analysis.coverage.values())
    say(f"{served} of {len(analysis.coverage)} objectives proved to serve every context")
    say(f"{counts}, revision {short_revision(engine.rules)}")


def _as_dict(analysis: Analysis, engine: Engine | None, *, ok: bool) -> dict[str, Any]:
    return {
        "ok": ok,
        "revision": None if engine is None else engine.rules,
        "at": utc_text(analysis.at),
        "steps": analysis.steps,
        "findings": [finding.as_dict() for finding in analysis.findings],
        "objectives": [
            {
                "objective": name,
                "every_context_served": coverage.served,
                "unserved": None
                if coverage.example is None
                else {"context": coverage.example.context, "at": utc_text(coverage.example.at)},
            }
            for name, coverage in sorted(analysis.coverage.items())
        ],
    }


@click.command(name="compile")
@click.argument("rules")
@click.option("-o", "--output", type=FILE, required=True, help="The bundle's file.")
@STACK
@AS_JSON
def compile_(rules: str, output: Path, stack: str | None, as_json: bool) -> None:
    """Compile RULES to a bundle.

    RULES is a rules directory, one in a git revision (HEAD~1:routing_rules), or `live:`, what is live, with the versions of
    its models. Equal rules give equal bytes; the revision is their SHA-256. Nothing is written if the rules have errors.
    """
    found = named_rules(rules, stack, as_json=as_json)
    write_file(output, found.bundle, "--output")
    if as_json:
        print_json({"file": str(output), "size_bytes": len(found.bundle), **revision_json(found.engine.revision)})
    else:
        say(f"{output}: {len(found.bundle)} bytes, revision {found.engine.rules}")


@click.command()
@click.argument("rules")
@click.option("--objective", help="Draw this objective only.")
@OUTPUT
@STACK
@AS_JSON
def graph(rules: str, objective: str | None, output: Path | None, stack: str | None, as_json: bool) -> None:
    """Draw objectives, rules, targets and shards of RULES as Mermaid text, which GitHub shows as a diagram.

    RULES is a rules directory, a compiled bundle, either in a git revision (HEAD~1:routing_rules), or `live:`, what is live.
    If an objective has more than 40 rules, neighbours that serve the same are drawn as one.
    """
    program = named_rules(rules, stack, as_json=as_json).program
    if objective is not None:
        check_objective(objective, {each.name for each in program.objectives})
    deliver(mermaid(program, objective), output, as_json=as_json)
