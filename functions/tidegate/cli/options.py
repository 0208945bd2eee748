"""Arguments and options that several commands take, and how an option's file is written."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from errno import EBADF, EFBIG
from pathlib import Path
from typing import Any, TypeVar

import click

from tidegate.cli import progress
from tidegate.cli.columns import say
from tidegate.cli.json_output import print_json
from tidegate.files import read_regular
from tidegate.rules.times import EXPECTED_TIME, parse_time
from tidegate.strict_json import DuplicateNameError, refuse_constant, unique_names

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

DIRECTORY = click.Path(exists=True, file_okay=False, path_type=Path)
STANDARD_INPUT = ("-", "@-")
MAX_CONTEXT_BYTES = 16 * 1024 * 1024

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)
WHY = click.option("--why", default="", help="Why, for the history.")
BY = click.option("--by", help="Who does it, for the history. Default: the user and the machine.")


def _moment(_context: click.Context, _parameter: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return parse_time(text)
    except ValueError as error:
        raise click.BadParameter(EXPECTED_TIME) from error


def at_option(help_text: str) -> Callable[[Decorated], Decorated]:
    """Return the option `--at`, which gives Unix seconds or None."""
    return click.option("--at", callback=_moment, help=help_text)


OUTPUT = click.option(
    "-o",
    "--output",
    type=FILE,
    help="The file to write: Markdown with the text in it if its name ends in .md. Default: standard output.",
)
AT = at_option("The time to decide at, ISO 8601 (UTC if it has no offset). Default: now.")


def json_object(context: click.Context, parameter: click.Parameter, text: str) -> dict[str, Any]:
    """Read an option that takes a JSON object: the text itself, `@FILE`, or `-` or `@-` for standard input."""
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
        # None if the program was started without one.
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


def write_file(file: Path, content: str | bytes, option: str) -> None:
    """Write a file that an option names."""
    try:
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        raise not_written(file, error, option) from error


def not_written(file: Path, error: OSError, option: str) -> click.BadParameter:
    """Return the error of a file that an option names and that cannot be written."""
    return click.BadParameter(f"{file} cannot be written: {error.strerror}", param_hint=option)


def deliver(mermaid: str, output: Path | None, *, as_json: bool) -> None:
    """Write a diagram to the output, or print it where there is none: as Mermaid text, in Markdown if the output's name says so."""
    suffix = "" if output is None else output.suffix
    if suffix in (".svg", ".png"):
        raise click.BadParameter(
            f"{output}: Mermaid text is no {suffix[1:].upper()}: name it .md or .mmd", param_hint="--output"
        )
    form, text = ("markdown", f"```mermaid\n{mermaid}```\n") if suffix == ".md" else ("mermaid", mermaid)
    if output is not None:
        write_file(output, text, "--output")
    if as_json:
        print_json({"format": form, "file": None if output is None else str(output), "text": text})
    elif output is None:
        progress.quiet()
        click.echo(text, nl=False)
    else:
        say(f"{output}: {form}, {len(text.encode())} bytes")
