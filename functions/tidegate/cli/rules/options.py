"""What the rules commands share: arguments, and how results are printed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from tidegate.rules.times import EXPECTED_TIME, parse_time

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


def _moment(_context: click.Context, _parameter: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return parse_time(text)
    except ValueError as error:
        raise click.BadParameter(EXPECTED_TIME) from error


def at_option(help_text: str) -> Callable[[Decorated], Decorated]:
    """`--at`, as Unix seconds or None."""
    return click.option("--at", callback=_moment, help=help_text)


AT = at_option("The time to decide at, ISO 8601 (UTC where it has no offset); now where left out.")


def print_json(value: Any) -> None:
    """Print a result as JSON."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
