"""What the rules commands share: arguments, and how results are printed."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from errno import EBADF, EFBIG
from pathlib import Path
from typing import Any, TypeVar

import click

from tidegate.cli.json_output import write_json
from tidegate.files import read_regular
from tidegate.rules.strict_json import DuplicateNameError, refuse_constant, unique_names
from tidegate.rules.times import EXPECTED_TIME, parse_time

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)
STANDARD_INPUT = ("-", "@-")
MAX_CONTEXT_BYTES = 16 * 1024 * 1024

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


def json_object(context: click.Context, parameter: click.Parameter, text: str) -> dict[str, Any]:
    """Read an option that takes a JSON object: the text itself, `@FILE`, or `-` or `@-` for standard input.

    Raises:
        click.BadParameter: it cannot be read, or is not a JSON object.
    """
    try:
        values = json.loads(_content(text), parse_constant=refuse_constant, object_pairs_hook=unique_names)
    except OSError as error:
        name = "standard input" if text in STANDARD_INPUT else text[1:]
        raise click.BadParameter(f"{name} cannot be read: {error.strerror}", context, parameter) from error
    except UnicodeDecodeError as error:
        raise click.BadParameter(f"{text} is not UTF-8 text", context, parameter) from error
    except DuplicateNameError as error:
        raise click.BadParameter(
            f"it is ambiguous: {error.name!r} is duplicated in one object", context, parameter
        ) from error
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"it is not JSON: {error}", context, parameter) from error
    if not isinstance(values, dict):
        hint = 'write a JSON object, such as \'{"country": "US"}\', or @FILE'
        raise click.BadParameter(hint, context, parameter)
    return values


def _content(text: str) -> str:
    if text in STANDARD_INPUT:
        # None where the program was started without one.
        if sys.stdin is None:
            raise OSError(EBADF, "it is closed")
        data = sys.stdin.buffer.read(MAX_CONTEXT_BYTES + 1)
        if len(data) > MAX_CONTEXT_BYTES:
            raise OSError(EFBIG, f"it is larger than {MAX_CONTEXT_BYTES} bytes")
    elif text.startswith("@"):
        data = read_regular(Path(text[1:]), MAX_CONTEXT_BYTES)
    else:
        return text
    return data.decode("utf-8-sig")


def print_json(value: Mapping[str, Any]) -> None:
    """Print a result as JSON."""
    write_json(value, indent=2)
