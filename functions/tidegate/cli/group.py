"""A group of commands whose failures are reported in words, and as JSON where that is asked for."""

from __future__ import annotations

import io
import sys
from typing import Any, NoReturn

import click

from tidegate.cli.columns import columns, say, wrapped
from tidegate.cli.json_output import note_arguments, write_failure
from tidegate.errors import InterruptedWorkError, TidegateError

INTERRUPTED = 130
"""The exit code after Ctrl-C: 128 and the signal's number."""


class ReportingGroup(click.Group):
    """A `TidegateError` ends any command with its message and exit code 1, Ctrl-C with 130; with `--json` every failure is
    JSON too."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run the program. What standard output cannot encode, such as a path that is no text, is escaped."""
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(errors="backslashreplace")
        return super().main(*arguments, **options)

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse the arguments of the program; wrong usage before any command is JSON too."""
        asked = list(args)
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            if parent is None:
                context = error.ctx or click.Context(self, info_name=info_name)
                note_arguments(context, asked)
                write_failure(context, error.format_message(), error.exit_code)
            _keep_within_columns(error)
            raise
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the group's own arguments, and note whether the rest asks for JSON."""
        note_arguments(ctx, args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; with `--json` a failure is printed as JSON on standard output too."""
        try:
            return super().invoke(ctx)
        except InterruptedWorkError as error:
            self._end(ctx, str(error), INTERRUPTED)
        except TidegateError as error:
            self._end(ctx, str(error), 1)
        except click.ClickException as error:
            write_failure(ctx, error.format_message(), error.exit_code)
            if ctx.parent is None:
                _keep_within_columns(error)
            raise
        except (KeyboardInterrupt, click.Abort):
            self._end(ctx, "interrupted", INTERRUPTED)

    def _end(self, ctx: click.Context, message: str, exit_code: int) -> NoReturn:
        write_failure(ctx, message, exit_code)
        say(f"error: {message}", err=True)
        ctx.exit(exit_code)


def _keep_within_columns(error: click.ClickException) -> None:
    """Have click print the message broken between words, so that no terminal breaks an address or a command."""
    width = columns(err=True)
    if width is not None:
        text = "\n".join(wrapped(f"Error: {error.format_message()}", width)).removeprefix("Error: ")
        error.format_message = lambda: text  # type: ignore[method-assign]
