"""`tidegate rules check`."""

from __future__ import annotations

from pathlib import Path

import click

from tidegate.cli.rules.options import AS_JSON, DIRECTORY, print_json
from tidegate.errors import RulesError
from tidegate.rules import compile_directory, load_bundle


@click.command()
@click.argument("directory", type=DIRECTORY)
@AS_JSON
def check(directory: Path, as_json: bool) -> None:
    """Check the rules: every error with its file, line and rule, and what would be right."""
    try:
        engine = load_bundle(compile_directory(directory))
    except RulesError as error:
        if as_json:
            findings = [
                {
                    "file": finding.file,
                    "line": finding.line,
                    "rule": finding.rule,
                    "message": finding.message,
                    "hint": finding.hint,
                }
                for finding in error.findings
            ]
            print_json({"ok": False, "findings": findings})
        else:
            click.echo(str(error), err=True)
        raise click.exceptions.Exit(1) from error
    if as_json:
        print_json({"ok": True, "findings": [], "revision": engine.revision, "objectives": sorted(engine.objectives)})
    else:
        targets = len(engine.targets())
        click.echo(f"ok: {len(engine.objectives)} objectives, {targets} targets, revision {engine.revision[:12]}")
