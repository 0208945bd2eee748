"""Words of Mermaid's flowcharts, escaped (https://mermaid.js.org/syntax/flowchart.html)."""

from __future__ import annotations

_LABEL_CHARACTERS = 80
_ENTITIES = {"#": "#35;", '"': "#quot;", "<": "#lt;", ">": "#gt;", "&": "#amp;", "`": "#96;", "\\": "#92;"}


def quoted(first: str, second: str = "") -> str:
    """The label of a node, of one line or of two."""
    return f'"{_escaped(first)}{"<br>" + _escaped(second) if second else ""}"'


def link_label(first: str, second: str = "") -> str:
    """What stands between an arrow and the node that it leads to; nothing where there is no label."""
    return f"|{quoted(first, second)}| " if first else ""


def _escaped(text: str) -> str:
    short = text if len(text) <= _LABEL_CHARACTERS else text[: _LABEL_CHARACTERS - 1] + "…"
    return "".join(_ENTITIES.get(each, each if each.isprintable() else " ") for each in short)
