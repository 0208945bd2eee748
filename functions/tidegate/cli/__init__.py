"""The command line. Exit codes: 0 well, 1 findings or failure, 2 wrong usage.

A command's module is imported when the command runs, so that `tidegate --help` costs click alone.
"""

from __future__ import annotations

import click

from tidegate import __version__
from tidegate.cli.lazy import LazyGroup

COMMANDS = {
    "init": ("tidegate.cli.init:init", "Write a whole first project: rules, cases and a small model."),
    "up": ("tidegate.cli.up:up", "Start the whole stack on this machine."),
    "rules": ("tidegate.cli.rules:rules", "Check, explain and compile rules."),
    "models": ("tidegate.cli.models:models", "Check, try and draw models."),
    "fleet": ("tidegate.cli.fleet:fleet", "Plan where models are placed."),
    "publish": ("tidegate.cli.publish:publish", "Make rules live, with the models that they need."),
    "rollback": ("tidegate.cli.rollback:rollback", "Make an earlier revision live again."),
    "reconcile": ("tidegate.cli.reconcile:reconcile", "Make every server hold what it must."),
    "recover": ("tidegate.cli.recover:recover", "Make the lost pointer to the live revision again."),
    "history": ("tidegate.cli.history:history", "List what was live when, by whom and why."),
    "shard-agent": ("tidegate.cli.shard_agent:shard_agent", "Look after the Triton server beside this process."),
    "facts": ("tidegate.cli.facts:facts", "Fill the table that models look facts up in."),
    "settings": ("tidegate.cli.settings:settings", "Show every setting of the processes."),
    "status": ("tidegate.cli.status:status", "Show the fleet at a glance."),
}
"""Every command: where it is, and what it does in one line."""


@click.group(cls=LazyGroup, commands_by_name=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tidegate")
def main() -> None:
    """Declarative routing in front of NVIDIA Triton Inference Server."""
