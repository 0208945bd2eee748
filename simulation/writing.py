"""Sections and pictures of docs/scale.md."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

REPORT = Path("docs/scale.md")


def mermaid_bars(title: str, axis: str, bars: Sequence[tuple[str, float]]) -> str:
    """Return a bar chart that GitHub draws from text."""
    names = ", ".join(f'"{name}"' for name, _ in bars)
    values = ", ".join(f"{value:.0f}" for _, value in bars)
    return f'```mermaid\nxychart-beta\n    title "{title}"\n    x-axis [{names}]\n    y-axis "{axis}"\n    bar [{values}]\n```'


def mermaid_lines(title: str, x_axis: tuple[str, float, float], y_axis: str, lines: Sequence[Sequence[float]]) -> str:
    """Return a line chart; the values of each line are evenly spaced from the begin of the x-axis to its end."""
    name, begin, end = x_axis
    drawn = "\n".join(f"    line [{', '.join(f'{value:g}' for value in line)}]" for line in lines)
    return f'```mermaid\nxychart-beta\n    title "{title}"\n    x-axis "{name}" {begin:g} --> {end:g}\n    y-axis "{y_axis}"\n{drawn}\n```'


def write_sections(sections: Mapping[str, str]) -> None:
    """Put sections in place of those of the page with the same names, between their marks."""
    text = REPORT.read_text(encoding="utf-8")
    for name, section in sections.items():
        mark = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- end -->)", re.DOTALL)
        if not mark.search(text):
            raise ValueError(f"{REPORT} has no place for {name}")
        dated = f"{section.strip()}\n\n*{datetime.now(UTC):%Y-%m-%d}, on a simulated clock.*\n"
        text = mark.sub(lambda _found, dated=dated: dated, text)  # type: ignore[misc]
    REPORT.write_text(text, encoding="utf-8")
