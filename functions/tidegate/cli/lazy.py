"""A group of commands that are imported when they run, so that `tidegate --help` costs click alone."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

from tidegate.cli.json_output import note_arguments, write_failure
from tidegate.errors import TidegateError


class LazyGroup(click.Group):
    """Commands by name, imported when they run; a `TidegateError` ends any of them with its message and exit code 1.

    `commands_by_name` gives for each command where it is (`module:attribute`) and what it does in one line.
    """

    def __init__(self, *arguments: Any, commands_by_name: Mapping[str, tuple[str, str]], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._commands = commands_by_name

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click gives it
        """The names of all commands, in the order of their table."""
        return list(self._commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # click gives it
        """Import a command."""
        if cmd_name not in self._commands:
            return None
        module, _, name = self._commands[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # click gives it
        """Write the list of commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in self._commands.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the group's own arguments, and note whether the rest asks for JSON."""
        note_arguments(ctx, args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; with `--json` a failure is printed as JSON on standard output too."""
        try:
            return super().invoke(ctx)
        except TidegateError as error:
            write_failure(ctx, str(error), 1)
            click.echo(f"error: {error}", err=True)
            ctx.exit(1)
        except click.ClickException as error:
            write_failure(ctx, error.format_message(), error.exit_code)
            raise
