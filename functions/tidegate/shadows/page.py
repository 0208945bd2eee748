"""The report as one HTML file, with the pictures in it: nothing is loaded, and no script runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from tidegate.shadows.pair_tally import PairTally
from tidegate.shadows.pictures import shadows_svg
from tidegate.shadows.report import COUNT_HEADS, HEADS, count_rows, heading, output_rows, sentences

_STYLE = """
:root{color-scheme:light dark}
body{font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;max-width:1030px;margin:2em auto;
padding:0 1em;background:#ffffff;color:#1f2933}
h2{font-size:1.1em;margin-top:2em}table{border-collapse:collapse;width:100%}
th,td{padding:.25em .8em .25em 0;text-align:right;border-bottom:1px solid #d5dbe1}
th{font-weight:600}th:first-child,td:first-child,th:last-child,td:last-child{text-align:left}svg{max-width:100%;height:auto}
@media (prefers-color-scheme:dark){body{background:#14181d;color:#e6eaee}th,td{border-color:#343c45}}
"""


def shadows_html(tallies: Sequence[PairTally]) -> str:
    _, _, picture = shadows_svg(tallies).partition("?>\n")
    counts = "\n".join(_table(COUNT_HEADS, count_rows(tallies))) if tallies else ""
    sections = "\n".join(part for tally in tallies for part in _section(tally))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Shadows</title>\n'
        '<meta name="viewport" content="width=device-width">\n'
        f"<style>{_STYLE}</style></head><body>\n<h1>Shadows</h1>\n{counts}\n{sections}\n{picture}</body></html>\n"
    )


def _section(tally: PairTally) -> Iterator[str]:
    yield f"<h2>{escape(heading(tally))}</h2>"
    yield f"<p>{'<br>'.join(map(escape, sentences(tally)))}</p>"
    if tally.outputs:
        yield from _table(HEADS, output_rows(tally))


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"<table><tr>{_cells('th', heads)}</tr>"
    yield from (f"<tr>{_cells('td', row)}</tr>" for row in rows)
    yield "</table>"


def _cells(element: str, texts: Sequence[str]) -> str:
    return "".join(f"<{element}>{escape(text)}</{element}>" for text in texts)
