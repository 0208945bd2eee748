"""`tidegate rules explain`."""

from __future__ import annotations

from typing import Any

import click

from tidegate.cli.columns import say
from tidegate.cli.control import STACK
from tidegate.cli.rules.compiled import check_objective
from tidegate.cli.rules.explanation import explanation_lines
from tidegate.cli.rules.options import AS_JSON, AT, json_object, print_json
from tidegate.cli.rules.revisions import named_rules
from tidegate.errors import ContextError


@click.command()
@click.argument("rules")
@click.option("--objective", required=True, help="The objective that is asked for.")
@click.option(
    "--context",
    default="{}",
    callback=json_object,
    help="The context: a JSON object, @FILE with one, or - for standard input.",
)
@AT
@STACK
@AS_JSON
def explain(
    rules: str, objective: str, context: dict[str, Any], at: float | None, stack: str | None, as_json: bool
) -> None:
    """Tell what a context decides by RULES, and for every rule why it matches or not. RULES is a rules directory, a
    compiled bundle, either in a git revision (HEAD~1:routing_rules), or `live:`, what is live.

    The arithmetic of a split, and of a layer's bucket, is spelled out so that it can be recomputed. Exit code 1: the
    context is refused, or no rule matches it.
    """
    found = named_rules(rules, stack, as_json=as_json)
    engine = found.engine
    # A bundle does not have the holdouts of its layers, so that what they own would be shown as free.
    layers = found.program.world.layers if found.has_files else {}
    check_objective(objective, engine.objectives)
    try:
        explanation = engine.explain(objective, context, at=at)
    except ContextError as error:
        if as_json:
            refused = {"attribute": error.attribute, "message": str(error)}
            print_json({"objective": objective, "decision": None, "error": refused})
        else:
            say(f"{objective}: the context is refused: {error}", err=True)
        raise click.exceptions.Exit(1) from error
    if as_json:
        print_json(explanation.as_dict(with_key=True))
    else:
        say("\n".join(explanation_lines(explanation, layers)))
    if explanation.decision is None:
        raise click.exceptions.Exit(1)
