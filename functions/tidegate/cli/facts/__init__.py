"""`tidegate facts …`: the table that models look facts up in."""

from __future__ import annotations

import click

from tidegate.cli.lazy import LazyGroup

COMMANDS = {
    "seed": ("tidegate.cli.facts.seed:seed", "Write models' seed files to the table."),
}


@click.group(cls=LazyGroup, commands_by_name=COMMANDS)
def facts() -> None:
    """Fill the table that models look facts up in."""
