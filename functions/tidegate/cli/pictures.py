"""What the commands that draw share: their options, and where a picture goes."""

from __future__ import annotations

from pathlib import Path

import click

from tidegate.cli.rules.options import print_json

FORMAT = click.option(
    "--format",
    "form",
    type=click.Choice(["mermaid", "svg"]),
    help="By default what the output's name says, or mermaid.",
)
OUTPUT = click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="The file; else it is printed."
)


def format_of(form: str | None, output: Path | None) -> str:
    """The format that was asked for, else the one that the output's name says, else mermaid."""
    return form or ("svg" if output is not None and output.suffix == ".svg" else "mermaid")


def deliver(text: str, form: str, output: Path | None, *, as_json: bool) -> None:
    """Write a picture to the output, or print it where there is none."""
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
