"""`tidegate models graph`."""

from __future__ import annotations

from pathlib import Path

import click

from tidegate.cli.models.options import open_repository, print_findings
from tidegate.cli.pictures import FORMAT, OUTPUT, deliver, format_of
from tidegate.cli.rules.options import AS_JSON, DIRECTORY, print_json
from tidegate.triton.checks import Judged, check_closure
from tidegate.triton.model_config import CONFIG
from tidegate.triton.pictures.dag import dag_of
from tidegate.triton.pictures.dag_svg import dag_svg
from tidegate.triton.pictures.mermaid import dag_mermaid


@click.command()
@click.argument("directory", type=DIRECTORY)
@click.argument("model", metavar="MODEL")
@FORMAT
@OUTPUT
@AS_JSON
def graph(directory: Path, model: str, form: str | None, output: Path | None, as_json: bool) -> None:
    """Draw MODEL, its inputs, steps and outputs, as Mermaid text or as an SVG picture.

    A model whose config has errors is not drawn: they are printed instead. Exit code 1: there are errors.
    """
    repository = open_repository(directory, (model,))
    errors = [
        finding
        for finding in check_closure(repository, (model,))
        if finding.severity == "error" and finding.file == f"{model}/{CONFIG}"
    ]
    folder = repository.model(model)
    if errors or folder is None:
        if as_json:
            print_json({"ok": False, "findings": [finding.as_dict() for finding in errors]})
        else:
            print_findings(Judged(tuple(errors)), 1, err=True)
        raise click.exceptions.Exit(1)
    form = format_of(form, output)
    dag = dag_of(folder, repository)
    deliver(dag_svg(dag) if form == "svg" else dag_mermaid(dag), form, output, as_json=as_json)
