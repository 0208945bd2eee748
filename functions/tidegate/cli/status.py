"""`tidegate status`: the fleet of a running gateway."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from tidegate.cli.control import read_fleet

PLAIN_WIDTH = 160
"""Columns where the output is no terminal, so that nothing is cut for a file or another program."""


@click.command()
@click.option("--url", default="http://127.0.0.1:8080", show_default=True, help="Address of the gateway.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer of /v1/fleet as it is.")
def status(url: str, as_json: bool) -> None:
    """Show the fleet of a running gateway: the live revision, and every model on every endpoint."""
    if not url.startswith(("http://", "https://")):
        raise click.BadParameter(f"{url!r} is no http:// or https:// address", param_hint="--url")
    fleet = read_fleet(url)
    if as_json:
        import json

        click.echo(json.dumps(fleet, indent=2))
        return
    _show(fleet)


def _show(fleet: Mapping[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    console.print(
        f"revision {fleet['revision'][:12]}, live since {fleet['since']}, {fleet['objectives']} objectives",
        highlight=False,
    )
    table = Table("shard", "endpoint", "pid", "state", "model", "version", "model state")
    for row in _rows(fleet):
        table.add_row(*row)
    console.print(table)
    rejected = fleet.get("rules", {}).get("last_rejected")
    if rejected:
        console.print(f"rules refused at {rejected['at']}:", style="bold red", highlight=False)
        for line in rejected["findings"]:
            console.print(f"  {line}", highlight=False, markup=False)


def _rows(fleet: Mapping[str, Any]) -> Iterator[list[str]]:
    for shard in fleet["shards"]:
        for endpoint in shard["endpoints"]:
            head = [shard["name"], endpoint["url"] or "-", str(endpoint["pid"] or "-"), endpoint["state"]]
            for model in endpoint["models"] or [{"name": "-", "version": "-", "state": "-"}]:
                yield [*head, model["name"], str(model["version"]), model["state"]]
                head = [""] * 4
