"""The groups of commands: how failures are reported, and commands that are imported when they run."""

from __future__ import annotations

import contextlib
import importlib
import io
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

import click

from tidegate.cli import progress
from tidegate.cli.columns import columns, say, wrapped
from tidegate.cli.json_output import note_arguments, write_failure
from tidegate.errors import InterruptedWorkError, TidegateError
from tidegate.interrupts import held_back

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

INTERRUPTED = 130
"""The exit code after Ctrl-C: 128 and the signal's number."""


class ReportingGroup(click.Group):
    """Ends a command that raises a `TidegateError` with its message and exit code 1, and with 130 after Ctrl-C.

    With `--json` every failure is JSON too.
    """

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run the program. What standard output cannot encode, such as a path that is not text, is escaped."""
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
        note_arguments(ctx, args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; with `--json` a failure is printed as JSON on standard output too."""
        with contextlib.nullcontext() if ctx.parent else progress.watched():
            return self._reported(ctx)

    def _reported(self, ctx: click.Context) -> object:
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

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        found = super().resolve_command(ctx, args)
        progress.note(f"{ctx.command_path} {found[0]}")
        return found

    def _end(self, ctx: click.Context, message: str, exit_code: int) -> NoReturn:
        write_failure(ctx, message, exit_code)
        say(f"error: {message}", err=True)
        ctx.exit(exit_code)


class LazyGroup(ReportingGroup):
    """Commands that are imported when they run, so that `tidegate --help` costs click alone.

    `commands_by_name` has each command's place (`module:attribute`) and what it does in one line.
    """

    def __init__(self, *arguments: Any, commands_by_name: Mapping[str, tuple[str, str]], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._commands = commands_by_name

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click gives it
        return list(self._commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # click gives it
        if cmd_name not in self._commands:
            return None
        module, _, name = self._commands[cmd_name][0].partition(":")
        with held_back():
            command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that the arguments name, or suggest the one that was probably meant."""
        name = args[0]
        if name not in self._commands and not name.startswith("-") and not ctx.resilient_parsing:
            import difflib

            near = difflib.get_close_matches(name, self._commands, n=1)
            ctx.fail(f"No such command {name!r}.{f' Did you mean {near[0]!r}?' if near else ''}")
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete the name of a command without importing any, or an option."""
        from click.shell_completion import CompletionItem

        found = [CompletionItem(name, help=text) for name, (_, text) in self._commands.items()]
        return [each for each in found if each.value.startswith(incomplete)] + click.Command.shell_complete(
            self, ctx, incomplete
        )

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # click gives it
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in self._commands.items()])


def _keep_within_columns(error: click.ClickException) -> None:
    """Break the message between words, so that no terminal breaks an address or a command."""
    width = columns(err=True)
    if width is not None:
        text = "\n".join(wrapped(f"Error: {error.format_message()}", width)).removeprefix("Error: ")
        error.format_message = lambda: text  # type: ignore[method-assign]
