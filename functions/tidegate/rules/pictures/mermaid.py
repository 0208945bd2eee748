"""The graph of the rules as Mermaid text (https://mermaid.js.org/syntax/flowchart.html)."""

from __future__ import annotations

from collections.abc import Iterator

from tidegate.rules.compare.wording import plain
from tidegate.rules.pictures.graph import Graph, graph_of
from tidegate.rules.pictures.mermaid_text import link_label, quoted
from tidegate.rules.program import Program

MAX_EDGES = 480
MAX_CHARACTERS = 48_000
"""Mermaid draws at most 500 edges and 50 000 characters, and a page cannot raise that."""


def mermaid(program: Program, objective: str | None = None) -> str:
    """The flowchart of a program that has no findings, of one objective or (None) of all."""
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
