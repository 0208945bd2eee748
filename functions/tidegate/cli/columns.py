"""Text within the columns of a terminal: lines broken between words, and tables that become lists where they do not fit.

A digest, an address or a path is never broken: one that is wider than the terminal stands on a line of its own.
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

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    Cell = str | Text

PLAIN_WIDTH = 200
"""Columns of a table where the output is no terminal and COLUMNS is not set: nothing is broken for a file or a program."""

NARROWEST = 20
UNBROKEN = "\0"
"""Stands for a blank that no line ends at."""

PASTED = ("tidegate ", "curl ", "$ ")
"""What begins a line that is a command to paste, which stays whole."""


def columns(*, err: bool = False) -> int | None:
    """How many columns text must keep within: as COLUMNS says, else those of the terminal; None: as many as it takes."""
    said = os.environ.get("COLUMNS", "")
    if said.isdecimal() and int(said):
        return max(NARROWEST, int(said))
    stream = sys.stderr if err else sys.stdout
    if stream is None or not stream.isatty():
        return None
    return max(NARROWEST, shutil.get_terminal_size().columns)


def say(text: str, *, err: bool = False) -> None:
    """Print text, each of its lines broken between words; what follows a break is indented further than its line."""
    width = columns(err=err)
    click.echo(text if width is None else "\n".join(wrapped(text, width)), err=err)


def confirmed(question: str) -> bool:
    """Ask for a yes on the terminal, before anything is changed.

    Raises:
        click.UsageError: standard input has ended, so nobody can answer.
        click.Abort: Ctrl-C.
    """
    try:
        answer = click.confirm(question)
    except click.Abort as abort:
        if isinstance(abort.__context__, EOFError):
            raise click.UsageError("nobody can answer here: give --yes; nothing was changed") from abort
        raise
    if not answer:
        say("nothing was changed")
    return answer


def wrapped(text: str, width: int) -> Iterator[str]:
    """The lines of a text, broken between words where they are wider than `width`."""
    for line in text.splitlines() or [""]:
        if len(line) <= width or line.lstrip().startswith(PASTED):
            yield line
            continue
        indent = " " * (len(line) - len(line.lstrip()))
        parts = textwrap.wrap(
            _with_whole_commands(line.strip(), width),
            width,
            initial_indent=indent,
            subsequent_indent=indent + "  ",
            break_long_words=False,
            break_on_hyphens=False,
        )
        yield from (part.replace(UNBROKEN, " ") for part in parts)


def _with_whole_commands(text: str, width: int) -> str:
    """The text with what stands in backquotes held together, where it fits into a line."""
    return re.sub(
        "`[^`]+`", lambda found: found[0].replace(" ", UNBROKEN) if len(found[0]) <= width // 2 else found[0], text
    )


def console() -> Console:
    """A console for results, whose text is printed as it is."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False, soft_wrap=True, width=columns() or PLAIN_WIDTH)


def line(out: Console, text: str = "", style: str = "") -> None:
    """Print text, broken between words where the console's width is a terminal's."""
    width = columns()
    for each in text.splitlines() or [""] if width is None else wrapped(text, width):
        out.print(each, style=style)


def show_table(
    out: Console,
    heads: Sequence[str],
    rows: Iterable[Sequence[Cell]],
    figures: Collection[str] = (),
    *,
    box: bool = False,
) -> None:
    """Print rows as a table, or one below the other where the table is wider than the console.

    Args:
        out: where to.
        heads: the column's names; an empty one is not repeated in a list.
        rows: their cells, as many as there are heads; an empty cell is left out of a list.
        figures: the names of the columns of numbers, which stand at the right.
        box: draw lines around the cells.
    """
    cells = [tuple(row) for row in rows]
    table = _table(heads, cells, figures, box=box)
    if out.measure(table, options=out.options.update(width=1_000_000)).maximum <= out.width:
        out.print(table)
        return
    for row in cells:
        line(out, _listed(heads, row), _style(row))


def _listed(heads: Sequence[str], row: Sequence[Cell]) -> str:
    named = [(head, str(cell)) for head, cell in zip(heads, row, strict=True) if str(cell)]
    if len(named) == 2:
        return " ".join(text for _, text in named)
    return ", ".join(f"{head} {text}" if head else text for head, text in named)


def _style(row: Sequence[Cell]) -> str:
    return next((str(style) for cell in row if (style := getattr(cell, "style", ""))), "")


def _table(heads: Sequence[str], rows: Sequence[Sequence[Cell]], figures: Collection[str], *, box: bool) -> Table:
    from rich.table import Table

    table = Table() if box else Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    for head in heads:
        table.add_column(head, justify="right" if head in figures else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table
