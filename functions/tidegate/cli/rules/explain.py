"""`tidegate rules explain`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from tidegate.cli.rules.compiled import check_objective, compiled
from tidegate.cli.rules.explanation import explanation_lines
from tidegate.cli.rules.options import AS_JSON, AT, DIRECTORY, print_json
from tidegate.errors import ContextError


@click.command()
@click.argument("directory", type=DIRECTORY)
@click.option("--objective", required=True, help="The objective that is asked for.")
@click.option("--context", default="{}", help="The context, a JSON object.")
@AT
@AS_JSON
def explain(directory: Path, objective: str, context: str, at: float | None, as_json: bool) -> None:
    """Tell what a context decides, and for every rule why it matches or not.

    The arithmetic of a split, and of a layer's bucket, is spelled out so that it can be recomputed. Exit code 1: the
    context is refused, or no rule matches it.
    """
    values = _context(context)
    program, engine, _ = compiled(directory, as_json=as_json)
    check_objective(objective, engine.objectives)
    try:
        explanation = engine.explain(objective, values, at=at)
    except ContextError as error:
        if as_json:
            refused = {"attribute": error.attribute, "message": str(error)}
            print_json({"objective": objective, "decision": None, "error": refused})
        else:
            click.echo(f"{objective}: the context is refused: {error}", err=True)
        raise click.exceptions.Exit(1) from error
    if as_json:
        print_json(explanation.as_dict(with_key=True))
    else:
        click.echo("\n".join(explanation_lines(explanation, program.world.layers)))
    if explanation.decision is None:
        raise click.exceptions.Exit(1)


def _context(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"it is not JSON: {error}", param_hint="--context") from error
    if not isinstance(values, dict):
        raise click.BadParameter('write a JSON object, such as \'{"country": "US"}\'', param_hint="--context")
    return values
