"""`tidegate rules graph`."""

from __future__ import annotations

from pathlib import Path

import click

from tidegate.cli.control import STACK
from tidegate.cli.pictures import FORMAT, OUTPUT, deliver, format_of
from tidegate.cli.rules.compiled import check_objective
from tidegate.cli.rules.options import AS_JSON
from tidegate.cli.rules.revisions import named_rules
from tidegate.rules.pictures.graph import graph_of
from tidegate.rules.pictures.graph_svg import graph_svg
from tidegate.rules.pictures.mermaid import mermaid


@click.command()
@click.argument("rules")
@click.option("--objective", help="Draw this objective alone.")
@FORMAT
@OUTPUT
@STACK
@AS_JSON
def graph(
    rules: str, objective: str | None, form: str | None, output: Path | None, stack: str | None, as_json: bool
) -> None:
    """Draw objectives, rules, targets and shards of RULES, as Mermaid text or as an SVG picture. RULES is a rules
    directory, a compiled bundle, either in a git revision (HEAD~1:routing_rules), or `live:`, what is live.

    Of an objective with more than 40 rules, neighbours that serve the same are drawn as one.
    """
    program = named_rules(rules, stack, as_json=as_json).program
    if objective is not None:
        check_objective(objective, {each.name for each in program.objectives})
    form = format_of(form, output)
    text = graph_svg(graph_of(program, objective)) if form == "svg" else mermaid(program, objective)
    deliver(text, form, output, as_json=as_json)
