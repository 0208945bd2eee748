"""`tidegate models image …`: what the images of model servers hold."""

from __future__ import annotations

from pathlib import Path

import click

from tidegate.cli import progress
from tidegate.cli.options import DIRECTORY, FILE, write_file
from tidegate.errors import StackError
from tidegate.models.images.describe import describe as described


@click.group()
def image() -> None:
    """Describe what the image of a shard's servers holds, so that models are checked against it."""


@image.command("describe")
@click.option(
    "--root",
    type=DIRECTORY,
    default="/",
    show_default=True,
    help="Where the image's file system is; / inside it.",
)
@click.option("--name", required=True, help="The image's full name, with its tag.")
@click.option("--output", "-o", type=FILE, help="File for the manifest.")
def describe(root: Path, name: str, output: Path | None) -> None:
    """Print the manifest of an image: its backends and Python modules, from its file system.

    Name the file under images/ of the rules directory, and in fleet.yaml by the shard that runs the image. Nothing is
    started or imported. An image's file system: docker export $(docker create IMAGE) | tar -x -C ROOT.
    """
    try:
        text = described(root, name)
    except OSError as error:
        raise StackError(f"{root} cannot be described: {error}") from error
    if output is None:
        progress.quiet()
        click.echo(text, nl=False)
    else:
        write_file(output, text, "--output")
