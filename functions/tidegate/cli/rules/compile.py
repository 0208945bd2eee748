"""`tidegate rules compile`."""

from __future__ import annotations

from pathlib import Path

import click

from tidegate.cli.rules.compiled import compiled
from tidegate.cli.rules.options import AS_JSON, DIRECTORY, print_json


@click.command(name="compile")
@click.argument("directory", type=DIRECTORY)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The bundle's file."
)
@AS_JSON
def compile_(directory: Path, output: Path, as_json: bool) -> None:
    """Compile the rules to a bundle.

    Equal rules give equal bytes; the revision is their SHA-256. Nothing is written where the rules have errors.
    """
    _, engine, data = compiled(directory, as_json=as_json)
    try:
        output.write_bytes(data)
    except OSError as error:
        raise click.BadParameter(f"{output} cannot be written: {error.strerror}", param_hint="--output") from error
    if as_json:
        print_json({"file": str(output), "size_bytes": len(data), "revision": engine.revision})
    else:
        click.echo(f"{output}: {len(data)} bytes, revision {engine.revision}")
