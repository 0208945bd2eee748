"""A group of commands whose failures are reported in words, and as JSON where that is asked for."""

from __future__ import annotations

import click

from tidegate.cli.json_output import note_arguments, write_failure
from tidegate.errors import TidegateError


class ReportingGroup(click.Group):
    """A `TidegateError` ends any command with its message and exit code 1; with `--json` every failure is JSON too."""

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
