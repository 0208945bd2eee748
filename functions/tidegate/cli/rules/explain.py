"""`tidegate rules explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from tidegate.cli.rules.compiled import check_objective, compiled
from tidegate.cli.rules.explanation import explanation_lines
from tidegate.cli.rules.options import AS_JSON, AT, DIRECTORY, json_object, print_json
from tidegate.errors import ContextError


@click.command()
@click.argument("directory", type=DIRECTORY)
@click.option("--objective", required=True, help="The objective that is asked for.")
@click.option(
    "--context",
    default="{}",
    callback=json_object,
    help="The context: a JSON object, @FILE with one, or - for standard input.",
)
@AT
@AS_JSON
def explain(directory: Path, objective: str, context: dict[str, Any], at: float | None, as_json: bool) -> None:
    """Tell what a context decides, and for every rule why it matches or not.

    The arithmetic of a split, and of a layer's bucket, is spelled out so that it can be recomputed. Exit code 1: the
    context is refused, or no rule matches it.
    """
    program, engine, _ = compiled(directory, as_json=as_json)
    check_objective(objective, engine.objectives)
    try:
        explanation = engine.explain(objective, context, at=at)
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
