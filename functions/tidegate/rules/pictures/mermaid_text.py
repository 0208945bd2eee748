"""Words of Mermaid's flowcharts, escaped (https://mermaid.js.org/syntax/flowchart.html).

Mermaid looks for more than its grammar within a label: for directives (`%%{init: …}%%`), HTML, mathematics (`$$…$$`),
icons (`fa:fa-ban`), Markdown lists, and for `style …:…#…;`, of which it drops the semicolon. All of these are written as
entities, so that a label shows the text of the rule whatever it is.
"""

from __future__ import annotations

import re

_LABEL_CHARACTERS = 80
_ALWAYS = frozenset('#"<>&`\\{}$')
_NAMED = {'"': "quot", "<": "lt", ">": "gt", "&": "amp"}
_SOMETIMES = re.compile(
    r"""
    %(?=%)|(?<=%)%      # a comment or a directive
    |:(?=\S)            # an icon, or what follows `style`
    |^[-+*](?=\s)       # a list of Markdown
    |(?<=^[0-9])[.)]    # a numbered one
    """,
    re.VERBOSE,
)


def quoted(first: str, second: str = "") -> str:
    """The label of a node, of one line or of two."""
    return f'"{_escaped(first)}{"<br>" + _escaped(second) if second else ""}"'


def link_label(first: str, second: str = "") -> str:
    """What stands between an arrow and the node that it leads to; nothing where there is no label."""
    return f"|{quoted(first, second)}| " if first else ""


def _escaped(text: str) -> str:
    short = text if len(text) <= _LABEL_CHARACTERS else text[: _LABEL_CHARACTERS - 1] + "…"
    plain = "".join(each if each.isprintable() else " " for each in short)
    places = {match.start() for match in _SOMETIMES.finditer(plain)}
    return "".join(
        f"#{_NAMED.get(each, ord(each))};" if each in _ALWAYS or place in places else each
        for place, each in enumerate(plain)
    )
