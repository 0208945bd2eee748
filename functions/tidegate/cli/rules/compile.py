"""`tidegate rules compile`."""

from __future__ import annotations

from pathlib import Path

import click

from tidegate.cli.rules.options import AS_JSON, DIRECTORY, print_json
from tidegate.rules import compile_directory, load_bundle


@click.command(name="compile")
@click.argument("directory", type=DIRECTORY)
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="The bundle's file."
)
@AS_JSON
def compile_(directory: Path, output: Path, as_json: bool) -> None:
    """Compile the rules to a bundle."""
    data = compile_directory(directory)
    output.write_bytes(data)
    revision = load_bundle(data).revision
    if as_json:
        print_json({"file": str(output), "size_bytes": len(data), "revision": revision})
    else:
        click.echo(f"{output}: {len(data)} bytes, revision {revision}")
