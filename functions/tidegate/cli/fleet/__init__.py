"""`tidegate fleet …`: what operators do with the fleet that the rules describe."""

from __future__ import annotations

import click

from tidegate.cli.lazy import LazyGroup

COMMANDS = {
    "plan": ("tidegate.cli.fleet.plan:plan", "Plan where models are placed, and what that would move."),
}


@click.group(cls=LazyGroup, commands_by_name=COMMANDS)
def fleet() -> None:
    """Plan the fleet that a rules directory describes."""
