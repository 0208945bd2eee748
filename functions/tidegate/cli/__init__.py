"""The command line. Exit codes: 0 success, 1 findings or failure, 2 wrong usage, 130 interrupted by Ctrl-C.

A command's module is imported when the command runs, so that `tidegate --help` costs click alone. Functions of this package
raise `click.UsageError` for what the user wrote, and `TidegateError` for what failed; `ReportingGroup` prints both.
"""

from __future__ import annotations

import click

from tidegate import __version__
from tidegate.cli.completion import SHELLS, install
from tidegate.cli.group import LazyGroup
from tidegate.cli.logs import LOG_OPTIONS, log_to_stderr

COMMANDS = {
    "init": ("tidegate.cli.init:init", "Write a first project: rules, cases and a small model."),
    "up": ("tidegate.cli.up:up", "Start the whole stack on this machine."),
    "rules": ("tidegate.cli.rules:rules", "Check, test, explain and compare rules."),
    "models": ("tidegate.cli.models:models", "Check, test, version and push models."),
    "capacity": ("tidegate.cli.capacity:capacity", "Calculate cores, servers and dollars for some traffic."),
    "fleet": ("tidegate.cli.fleet:fleet", "Plan where models are placed."),
    "follow": ("tidegate.cli.follow:follow", "Show, pause and resume how a stack follows its rules directory."),
    "publish": ("tidegate.cli.publish:publish", "Make rules live, with the models that they need."),
    "rollback": ("tidegate.cli.live:rollback", "Make an earlier revision live again."),
    "reconcile": ("tidegate.cli.live:reconcile", "Load and unload until every server holds what it must."),
    "recover": ("tidegate.cli.live:recover", "Restore the lost pointer to the live revision."),
    "history": ("tidegate.cli.live:history", "List what was live when, by whom and why."),
    "shadow": ("tidegate.cli.shadow:shadow", "Compare the answers of shadows with those that callers got."),
    "shard-agent": ("tidegate.cli.up:shard_agent", "Manage the Triton server beside this process."),
    "facts": ("tidegate.cli.facts:facts", "Fill the table that models look facts up in."),
    "settings": ("tidegate.cli.about:settings", "Show every setting of the processes."),
    "version": ("tidegate.cli.about:version", "Show the versions of Tidegate and of Python."),
    "envoy": ("tidegate.cli.envoy:envoy", "Carry requests by Envoy, and let Tidegate decide."),
    "resolve-server": ("tidegate.cli.resolve_server:resolve_server", "Decide for a proxy that carries the requests."),
    "console": ("tidegate.cli.console:console", "Print the link to the console of a running stack."),
    "status": ("tidegate.cli.status:status", "Show the fleet at a glance."),
}


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
    help="Write the completion of a shell (default: that of SHELL) and exit.",
)
@LOG_OPTIONS
def main() -> None:
    """Declarative routing in front of NVIDIA Triton Inference Server."""
    log_to_stderr()
