"""The graph of the rules as Mermaid text (https://mermaid.js.org/syntax/flowchart.html), and labels of such texts."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tidegate.analysis.figures import plain
from tidegate.analysis.pictures.graph import Graph, graph_of
from tidegate.language.program import Program

MAX_EDGES = 480
MAX_CHARACTERS = 48_000
"""Mermaid draws at most 500 edges and 50 000 characters, and a page cannot raise that."""

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


def mermaid(program: Program, objective: str | None = None) -> str:
    """Return the flowchart of a program that has no findings, of one objective or (None) of all."""
    text = ""
    for most in (100, 50, 25, 12, 6, 3):
        lines = list(_lines(graph_of(program, objective, most)))
        text = "\n".join(lines) + "\n"
        if sum(" --> " in line or ".-> " in line for line in lines) <= MAX_EDGES and len(text) <= MAX_CHARACTERS:
            break
    return text


def _lines(graph: Graph) -> Iterator[str]:
    targets = {target.name: f"t{number}" for number, target in enumerate(graph.targets)}
    shards = {shard: f"s{number}" for number, shard in enumerate(graph.shards)}
    yield "flowchart LR"
    for target in graph.targets:
        yield f"  {targets[target.name]}[{quoted(target.name, target.resolved)}]"
    for shard, replicas in graph.shards.items():
        yield f"  {shards[shard]}[({quoted(shard, f'{replicas} replica' + ('' if replicas == 1 else 's'))})]"
    for number, objective in enumerate(graph.objectives):
        yield f"  o{number}([{quoted(objective.name, objective.owner)}])"
        for position, rule in enumerate(objective.rules):
            node = f"r{number}_{position}"
            yield f"  {node}[{quoted(rule.label, rule.detail)}]"
            yield f"  o{number} --> {node}"
            for served in rule.serves:
                yield f"  {node} --> {link_label(served.label)}{targets[served.target]}"
            for name, percent in rule.shadows:
                yield f"  {node} -.-> {link_label(f'shadow {plain(percent)} %')}{targets[name]}"
        fallbacks = dict.fromkeys(name for rule in objective.rules for name in rule.fallbacks)
        for name in fallbacks:
            yield f"  o{number} -.-> {link_label('fallback')}{targets[name]}"
    for target in graph.targets:
        for place, shard in enumerate(target.shards):
            arrow = "-->" if place == 0 else "-.->"
            yield f"  {targets[target.name]} {arrow} {shards[shard]}"


def quoted(first: str, second: str = "") -> str:
    """Return the label of a node, of one line or of two."""
    return f'"{_escaped(first)}{"<br>" + _escaped(second) if second else ""}"'


def link_label(first: str, second: str = "") -> str:
    """Return the label between an arrow and the node that it leads to, if there is one."""
    return f"|{quoted(first, second)}| " if first else ""


def _escaped(text: str) -> str:
    """Return a text with all characters as entities that Mermaid may read as more than text.

    It looks for more than its grammar within a label: for directives (`%%{init: …}%%`), HTML, mathematics (`$$…$$`), icons
    (`fa:fa-ban`), Markdown lists, and for `style …:…#…;`, of which it drops the semicolon.
    """
    short = text if len(text) <= _LABEL_CHARACTERS else text[: _LABEL_CHARACTERS - 1] + "…"
    plain = "".join(each if each.isprintable() else " " for each in short)
    places = {match.start() for match in _SOMETIMES.finditer(plain)}
    return "".join(
        f"#{_NAMED.get(each, ord(each))};" if each in _ALWAYS or place in places else each
        for place, each in enumerate(plain)
    )
