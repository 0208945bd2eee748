"""`tidegate rules graph`."""

from __future__ import annotations

from pathlib import Path

import click

from tidegate.cli.rules.compiled import check_objective, sound_program
from tidegate.cli.rules.options import AS_JSON, DIRECTORY, print_json
from tidegate.rules.pictures.graph import graph_of
from tidegate.rules.pictures.graph_svg import graph_svg
from tidegate.rules.pictures.mermaid import mermaid


@click.command()
@click.argument("directory", type=DIRECTORY)
@click.option("--objective", help="Draw this objective alone.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["mermaid", "svg"]),
    help="By default what the output's name says, or mermaid.",
)
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="The file; else it is printed.")
@AS_JSON
def graph(directory: Path, objective: str | None, form: str | None, output: Path | None, as_json: bool) -> None:
    """Draw objectives, rules, targets and shards, as Mermaid text or as an SVG picture.

    Of an objective with more than 40 rules, neighbours that serve the same are drawn as one.
    """
    program = sound_program(directory, as_json=as_json)
    if objective is not None:
        check_objective(objective, {each.name for each in program.objectives})
    if form is None:
        form = "svg" if output is not None and output.suffix == ".svg" else "mermaid"
    text = graph_svg(graph_of(program, objective)) if form == "svg" else mermaid(program, objective)
    if output is not None:
        try:
            output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise click.BadParameter(f"{output} cannot be written: {error.strerror}", param_hint="--output") from error
    if as_json:
        print_json({"format": form, "file": None if output is None else str(output), "text": text})
    elif output is None:
        click.echo(text, nl=False)
    else:
        click.echo(f"{output}: {form}, {len(text.encode())} bytes")
