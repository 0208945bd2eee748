"""`make package`: build the functions' assets for both architectures, and print their sizes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from assets.building import ASSETS, PLATFORMS, Built, build

MEGABYTE = 1_000_000


@click.command()
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("build"), show_default=True)
@click.option("--architecture", type=click.Choice(sorted(PLATFORMS)), multiple=True, help="One only; both by default.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def package(out: Path, architecture: tuple[str, ...], as_json: bool) -> None:
    """Build the functions' assets below OUT. Exit code 1: one is larger than its bound."""
    built = [build(asset, each, out.resolve()) for asset in ASSETS for each in architecture or sorted(PLATFORMS)]
    if as_json:
        click.echo(json.dumps([_as_dict(each) for each in built], indent=2))
    else:
        _show(built)
    if not all(each.is_within_bound for each in built):
        raise click.exceptions.Exit(1)


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
