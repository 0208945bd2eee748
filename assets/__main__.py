"""`make package`: build the functions' assets for both architectures, and print their sizes."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from assets.building import ASSETS, PLATFORMS, THIS_PYTHON, Built, build, find_python

MEGABYTE = 1_000_000


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("build"), show_default=True)
@click.option(
    "--asset",
    "names",
    type=click.Choice([each.name for each in ASSETS]),
    multiple=True,
    help="One only; both by default.",
)
@click.option("--architecture", type=click.Choice(sorted(PLATFORMS)), multiple=True, help="One only; both by default.")
@click.option("--stage", help="Build for the Python of this stage's functions; by default for the Python that builds.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def package(out: Path, names: tuple[str, ...], architecture: tuple[str, ...], stage: str | None, as_json: bool) -> None:
    """Build the functions' assets below OUT. Exit code 1: one is larger than its bound, or its Python is not installed."""
    version = THIS_PYTHON if stage is None else _python_of(stage)
    interpreter = find_python(version)
    if interpreter is None:
        raise click.ClickException(
            f"python{version} is not on the PATH: the functions of stage {stage} run on it, and only it can compile their "
            f"modules. Install it, or set another `python_version` in infra/settings/{stage}.yaml"
        )
    built = [
        build(asset, each, out.resolve(), version, interpreter)
        for asset in ASSETS
        if asset.name in (names or (asset.name,))
        for each in architecture or sorted(PLATFORMS)
    ]
    if as_json:
        click.echo(json.dumps([_as_dict(each) for each in built], indent=2))
    else:
        _show(built)
    if not all(each.is_within_bound for each in built):
        raise click.exceptions.Exit(1)


def _python_of(stage: str) -> str:
    from tidegate.errors import TidegateError

    from infra.reading import read_settings

    try:
        return read_settings(stage, os.environ).python_version
    except TidegateError as error:
        raise click.ClickException(str(error)) from error


def _as_dict(built: Built) -> dict[str, object]:
    return {
        "asset": built.asset.name,
        "architecture": built.architecture,
        "archive": str(built.archive),
        "archive_bytes": built.archive_bytes,
        "unpacked_bytes": built.unpacked_bytes,
        "most_bytes": built.asset.most_bytes,
        "sha256": built.sha256,
    }


def _show(built: list[Built]) -> None:
    console = Console(width=None if sys.stdout.isatty() else 140)
    table = Table("asset", "architecture", "archive, MB", "unpacked, MB", "at most, MB", "sha256")
    for each in built:
        sizes = (each.archive_bytes, each.unpacked_bytes, each.asset.most_bytes)
        table.add_row(
            each.asset.name, each.architecture, *(f"{size / MEGABYTE:.1f}" for size in sizes), each.sha256[:16]
        )
    console.print(table)
    for each in built:
        if not each.is_within_bound:
            console.print(f"[bold red]{each.asset.name} for {each.architecture} is over its bound[/]")


if __name__ == "__main__":
    package()
