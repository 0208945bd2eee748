"""Where the nodes of a model's graph stand: in columns, each to the right of all that it needs.

A small version of the layering of Sugiyama, Tagawa and Toda (1981): longest paths give the columns, a way that skips a
column keeps a slot there, and each column is ordered by the mean place of what its nodes read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tidegate.triton.pictures.dag import Dag, Edge

Node = tuple[str, int]
"""An `input`, a `step` or an `output` by its place; or a `way`, the slot of an edge that only passes a column."""


@dataclass(frozen=True, slots=True)
class Columns:
    """The nodes of each column from the top, and the slots that an edge passes, from left to right, by the edge's place."""

    nodes: tuple[tuple[Node, ...], ...]
    ways: Mapping[int, tuple[Node, ...]]


def ends(dag: Dag, edge: Edge) -> tuple[Node, Node]:
    """The nodes at both ends of an edge."""
    inputs = [tensor.name for tensor in dag.inputs]
    outputs = [tensor.name for tensor in dag.outputs]
    source = ("input", inputs.index(edge.tensor)) if edge.source is None else ("step", edge.source)
    target = ("output", outputs.index(edge.tensor)) if edge.target is None else ("step", edge.target)
    return source, target


def columns_of(dag: Dag) -> Columns:
    """The columns of a graph without circles."""
    pairs = [ends(dag, edge) for edge in dag.edges]
    level = _levels(dag, pairs)
    columns: list[list[Node]] = [[] for _ in range(max(level.values(), default=0) + 1)]
    for node, number in level.items():
        columns[number].append(node)
    sources: dict[Node, list[Node]] = {}
    ways: dict[int, tuple[Node, ...]] = {}
    slots = 0
    for place, (source, target) in enumerate(pairs):
        passed: list[Node] = []
        for number in range(level[source] + 1, level[target]):
            slot = ("way", slots)
            slots += 1
            columns[number].append(slot)
            sources[slot] = [passed[-1] if passed else source]
            passed.append(slot)
        sources.setdefault(target, []).append(passed[-1] if passed else source)
        ways[place] = tuple(passed)
    return Columns(tuple(_ordered(columns, sources)), ways)


def _levels(dag: Dag, pairs: Sequence[tuple[Node, Node]]) -> dict[Node, int]:
    """The column of each node: inputs in the first, outputs in the last, a step as far left as what it reads allows."""
    steps: list[Node] = [("step", number) for number in range(len(dag.steps))]
    level: dict[Node, int] = {("input", number): 0 for number in range(len(dag.inputs))} | dict.fromkeys(steps, 1)
    for _ in steps:
        for source, target in pairs:
            if target[0] == "step":
                level[target] = max(level[target], level[source] + 1)
    last = max(level[step] for step in steps) + 1
    return level | {("output", number): last for number in range(len(dag.outputs))}


def _ordered(columns: Sequence[Sequence[Node]], sources: Mapping[Node, Sequence[Node]]) -> list[tuple[Node, ...]]:
    place: dict[Node, float] = {}
    ordered = []
    for column in columns:
        mean = {
            node: sum(place[each] for each in sources[node]) / len(sources[node]) if node in sources else number
            for number, node in enumerate(column)
        }
        chosen = sorted(column, key=lambda node, mean=mean: mean[node])  # type: ignore[misc]
        place |= {node: (number + 0.5) / len(chosen) for number, node in enumerate(chosen)}
        ordered.append(tuple(chosen))
    return ordered
