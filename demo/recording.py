"""Records a console as a picture of a terminal: the README's, by `make recording`."""

from __future__ import annotations

import re
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI

_FONT = re.compile(r"\s*@font-face \{.*?\}", re.DOTALL)


def console(width: int) -> Console:
    """Return a console that records what it prints, without what a terminal redraws."""
    return Console(width=width, highlight=False, record=True, force_terminal=False)


def save(recorded: Console, file: Path, *, title: str) -> None:
    """Write what was printed as an SVG. Equal output gives equal bytes."""
    svg = recorded.export_svg(title=title, theme=MONOKAI, unique_id="terminal")
    # A picture in a README loads no fonts of others.
    file.write_text(_FONT.sub("", svg), encoding="utf-8")
