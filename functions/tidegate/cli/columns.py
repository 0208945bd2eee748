"""Prints text within the columns of a terminal: lines broken between words, and tables that become lists if they do not fit.

A digest, an address or a path is never broken: one that is wider than the terminal gets a line of its own.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import textwrap
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from tidegate.cli import progress

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    Cell = str | Text

PLAIN_WIDTH = 200
"""Width of a table if the output is not a terminal and COLUMNS is not set."""

NARROWEST = 20
UNBROKEN = "\0"  # in place of a space at which no line is broken
PASTED = ("tidegate ", "curl ", "$ ")
"""The beginnings of lines to paste, which are never broken."""


def columns(*, err: bool = False) -> int | None:
    """Return the width for text: that of COLUMNS, else of the terminal; None: unlimited."""
    wanted = os.environ.get("COLUMNS", "")
    if wanted.isdecimal() and int(wanted):
        return max(NARROWEST, int(wanted))
    stream = sys.stderr if err else sys.stdout
    if stream is None or not stream.isatty():
        return None
    return max(NARROWEST, shutil.get_terminal_size().columns)


def say(text: str, *, err: bool = False, style: str | None = None) -> None:
    """Print text, its lines broken between words, with a deeper indent after a break. A styled text is a result."""
    progress.quiet()
    width = columns(err=err)
    lines = text.splitlines() or [""] if width is None else list(wrapped(text, width))
    if style is None:
        click.echo("\n".join(lines), err=err)
        return
    out = console()
    for line in lines:
        out.print(line, style=style)


def count(number: int, noun: str, plural: str | None = None) -> str:
    """Return a number of things in words, such as `1 model` or `2,000 lines`."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def first(lines: Sequence[str], most: int, *, rest: str = "--json has all") -> Iterator[str]:
    """Yield the first lines, and then how many more there are and what shows them all."""
    yield from lines[:most]
    if len(lines) > most:
        yield f"… and {len(lines) - most:,} more; {rest}"


def confirmed(question: str) -> bool:
    """Ask for a yes on the terminal, before anything is changed."""
    progress.end()
    try:
        answer = click.confirm(question)
    except click.Abort as abort:
        if isinstance(abort.__context__, EOFError):
            raise click.UsageError("no terminal to ask on: give --yes; nothing was changed") from abort
        raise
    if not answer:
        say("nothing was changed")
    return answer


def wrapped(text: str, width: int) -> Iterator[str]:
    """Yield the lines of a text, broken between words where they are wider than `width`."""
    for line in text.splitlines() or [""]:
        if len(line) <= width or line.lstrip().startswith(PASTED):
            yield line
            continue
        indent = " " * (len(line) - len(line.lstrip()))
        # Short commands in backquotes stay on one line.
        whole = re.sub(
            "`[^`]+`",
            lambda found: found[0].replace(" ", UNBROKEN if len(found[0]) <= width // 2 else " "),
            line.strip(),
        )
        parts = textwrap.wrap(
            whole,
            width,
            initial_indent=indent,
            subsequent_indent=indent + "  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        yield from (part.replace(UNBROKEN, " ") for part in parts)


def console() -> Console:
    """Return a console for results that prints text as it is."""
    progress.quiet()
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False, soft_wrap=True, width=columns() or PLAIN_WIDTH)


def show_table(
    heads: Sequence[str], rows: Iterable[Sequence[Cell]], figures: Collection[str] = (), *, box: bool = False
) -> None:
    """Print rows as a table, or as a list without empty heads and cells if the table is wider than the console. `figures` are
    the heads of the columns of numbers, which are aligned right."""
    out, cells = console(), [tuple(row) for row in rows]
    table = _table(heads, cells, figures, box=box)
    if out.measure(table, options=out.options.update(width=1_000_000)).maximum <= out.width:
        out.print(table)
        return
    for row in cells:
        say(
            _listed(heads, row), style=next((str(style) for cell in row if (style := getattr(cell, "style", ""))), None)
        )


def _listed(heads: Sequence[str], row: Sequence[Cell]) -> str:
    named = [(head, str(cell)) for head, cell in zip(heads, row, strict=True) if str(cell)]
    if len(named) == 2:
        return " ".join(text for _, text in named)
    return ", ".join(f"{head} {text}" if head else text for head, text in named)


def _table(heads: Sequence[str], rows: Sequence[Sequence[Cell]], figures: Collection[str], *, box: bool) -> Table:
    from rich.table import Table

    table = Table() if box else Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for head in heads:
        table.add_column(head, justify="right" if head in figures else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table
