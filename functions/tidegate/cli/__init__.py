"""The command line. Exit codes: 0 well, 1 findings or failure, 2 wrong usage, 130 interrupted by Ctrl-C.

A command's module is imported when the command runs, so that `tidegate --help` costs click alone.
"""

from __future__ import annotations

import click

from tidegate import __version__
from tidegate.cli.completion import SHELLS, install
from tidegate.cli.lazy import LazyGroup
from tidegate.cli.logs import LOG_OPTIONS, log_to_stderr

COMMANDS = {
    "init": ("tidegate.cli.init:init", "Write a whole first project: rules, cases and a small model."),
    "up": ("tidegate.cli.up:up", "Start the whole stack on this machine."),
    "rules": ("tidegate.cli.rules:rules", "Check, explain and compile rules."),
    "models": ("tidegate.cli.models:models", "Check, try and draw models."),
    "fleet": ("tidegate.cli.fleet:fleet", "Plan where models are placed."),
    "follow": ("tidegate.cli.follow:follow", "See, pause and resume how a stack follows its rules directory."),
    "publish": ("tidegate.cli.publish:publish", "Make rules live, with the models that they need."),
    "rollback": ("tidegate.cli.rollback:rollback", "Make an earlier revision live again."),
    "reconcile": ("tidegate.cli.reconcile:reconcile", "Make every server hold what it must."),
    "recover": ("tidegate.cli.recover:recover", "Make the lost pointer to the live revision again."),
    "history": ("tidegate.cli.history:history", "List what was live when, by whom and why."),
    "shard-agent": ("tidegate.cli.shard_agent:shard_agent", "Look after the Triton server beside this process."),
    "facts": ("tidegate.cli.facts:facts", "Fill the table that models look facts up in."),
    "settings": ("tidegate.cli.settings:settings", "Show every setting of the processes."),
    "version": ("tidegate.cli.version:version", "Show the versions of Tidegate and of Python."),
    "status": ("tidegate.cli.status:status", "Show the fleet at a glance."),
}
"""Every command: where it is, and what it does in one line."""


@click.group(cls=LazyGroup, commands_by_name=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tidegate")
@click.option(
    "--install-completion",
    type=click.Choice(["auto", *SHELLS]),
    is_flag=False,
    flag_value="auto",
    expose_value=False,
    is_eager=True,
    callback=install,
    help="Write the completion of a shell, by default of SHELL, and exit.",
)
@LOG_OPTIONS
def main() -> None:
    """Declarative routing in front of NVIDIA Triton Inference Server."""
    log_to_stderr()
