"""Output of `--json`: one JSON object, or one per line, each with `format_version`, also if the command fails.

docs/json.md has the members of each command's output. A new member needs no new version; one that is removed or changes its
meaning does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from tidegate.cli import progress

FORMAT_VERSION = 1
_WANTED = "tidegate.json"
_DONE = "tidegate.json_done"

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
EVENTS_AS_JSON = click.option(
    "--json", "as_json", is_flag=True, help="Print each event, and last the result, as a line of JSON."
)


def print_json(value: Mapping[str, Any]) -> None:
    """Print the result of a command as JSON."""
    write_json(value, indent=2)


def write_json(value: Mapping[str, Any], *, indent: int | None = None, is_last: bool = True) -> None:
    """Print a JSON object with the format version. `is_last`: it is the command's result."""
    progress.quiet()
    text = json.dumps({"format_version": FORMAT_VERSION, **value}, indent=indent, ensure_ascii=False)
    # A path may not be valid text: Python's escape of a lone surrogate is also JSON's.
    click.echo(text.encode("utf-8", "backslashreplace").decode())
    context = click.get_current_context(silent=True)
    if is_last and context is not None:
        context.meta[_DONE] = True


def note_arguments(context: click.Context, arguments: Sequence[str]) -> None:
    """Note whether the command line asks for JSON, so that a failure before the command runs is JSON too."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    context.meta.setdefault(_WANTED, "--json" in options)


def write_failure(context: click.Context, message: str, exit_code: int) -> None:
    """Print why a command failed, if JSON was asked for and the command has not printed its result."""
    if context.meta.get(_WANTED) and not context.meta.get(_DONE):
        write_json({"ok": False, "error": message, "exit_code": exit_code})
