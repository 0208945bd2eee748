"""`tidegate rules graph`."""

from __future__ import annotations

from pathlib import Path

import click

from tidegate.cli.pictures import FORMAT, OUTPUT, deliver, format_of
from tidegate.cli.rules.compiled import check_objective, sound_program
from tidegate.cli.rules.options import AS_JSON, DIRECTORY
from tidegate.rules.pictures.graph import graph_of
from tidegate.rules.pictures.graph_svg import graph_svg
from tidegate.rules.pictures.mermaid import mermaid


@click.command()
@click.argument("directory", type=DIRECTORY)
@click.option("--objective", help="Draw this objective alone.")
@FORMAT
@OUTPUT
@AS_JSON
def graph(directory: Path, objective: str | None, form: str | None, output: Path | None, as_json: bool) -> None:
    """Draw objectives, rules, targets and shards, as Mermaid text or as an SVG picture.

    Of an objective with more than 40 rules, neighbours that serve the same are drawn as one.
    """
    program = sound_program(directory, as_json=as_json)
    if objective is not None:
        check_objective(objective, {each.name for each in program.objectives})
    form = format_of(form, output)
    text = graph_svg(graph_of(program, objective)) if form == "svg" else mermaid(program, objective)
    deliver(text, form, output, as_json=as_json)
