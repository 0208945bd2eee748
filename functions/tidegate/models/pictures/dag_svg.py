"""A model's graph as SVG: from left to right its inputs, its steps with their tensors, and its outputs.

The columns are a small version of the layering of Sugiyama, Tagawa and Toda (1981): longest paths give a node's column, an edge
that skips a column has a slot there, and each column is ordered by the mean place of what its nodes read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tidegate.analysis.pictures.svg import BOLD, PALETTE, Picture, shortened, swing
from tidegate.models.pictures.dag import Dag, Edge

MARGIN = 24.0
HEADER = 62.0
CARD = 250.0
"""Width of a step."""

PLAIN = 190.0
GAP = 70.0
HEAD = 44.0
"""Height of an input, an output, or the head of a step."""

LANE = 18.0
SLOT = 18.0
SPACE = 18.0


Node = tuple[str, int]
"""An `input`, a `step` or an `output` by its index; or a `way`, the slot of an edge that only passes a column."""


class _Box(NamedTuple):
    x: float
    y: float
    width: float
    height: float


def dag_svg(dag: Dag) -> str:
    columns, ways = _columns_of(dag)
    boxes: dict[Node, _Box] = {}
    x, heights = MARGIN, [sum(_height(dag, node) + SPACE for node in column) for column in columns]
    for column, height in zip(columns, heights, strict=True):
        width = max(({"step": CARD, "way": 0.0}.get(kind, PLAIN) for kind, _ in column), default=0.0)
        y = HEADER + (max(heights) - height) / 2
        for node in column:
            boxes[node] = _Box(x, y, width, _height(dag, node))
            y += _height(dag, node) + SPACE
        x += width + GAP
    width = max(x - GAP + MARGIN, 420.0)
    picture = Picture(width, HEADER + max(heights) + MARGIN, f"Model {dag.model}", _description(dag))
    picture.text(MARGIN, 32, shortened(dag.model, width - 2 * MARGIN), "ink bold")
    for place in range(len(dag.edges)):
        _draw_edge(picture, dag, boxes, place, ways[place])
    for node, box in boxes.items():
        _draw_node(picture, dag, node, box)
    return picture.render()


def _height(dag: Dag, node: Node) -> float:
    if node[0] == "way":
        return SLOT
    if node[0] != "step":
        return HEAD
    step = dag.steps[node[1]]
    return HEAD + max(len(step.inputs), len(step.outputs)) * LANE + 6


def _port(dag: Dag, node: Node, box: _Box, name: str, *, gives: bool) -> tuple[float, float]:
    x = box.x + box.width if gives else box.x
    if node[0] != "step":
        return x, box.y + box.height / 2
    step = dag.steps[node[1]]
    return x, box.y + HEAD + ((step.outputs if gives else step.inputs).index(name) + 0.5) * LANE


def _draw_edge(picture: Picture, dag: Dag, boxes: dict[Node, _Box], place: int, ways: tuple[Node, ...]) -> None:
    edge = dag.edges[place]
    source, target = _ends(dag, edge)
    points = [_port(dag, source, boxes[source], edge.source_name, gives=True)]
    for way in ways:
        box = boxes[way]
        points += [(box.x, box.y + SLOT / 2), (box.x + box.width, box.y + SLOT / 2)]
    points.append(_port(dag, target, boxes[target], edge.target_name, gives=False))
    there = "".join(swing(*points[number], *points[number + 1]) for number in range(len(points) - 1))
    (x, y), end = points[0], points[-1]
    begin = "the input" if edge.source is None else dag.steps[edge.source].label
    last = "the output" if edge.target is None else dag.steps[edge.target].label
    tip = f"{edge.tensor}: {edge.detail}, from {begin} {edge.source_name} to {last} {edge.target_name}"
    picture.path(f"M{x:.1f} {y:.1f}{there}", "ink", tip=tip)
    picture.path(f"M{end[0]:.1f} {end[1]:.1f}l-7 -3.5v7Z", f"c{_colour(edge.source)}")


def _draw_node(picture: Picture, dag: Dag, node: Node, box: _Box) -> None:
    kind, number = node
    if kind == "way":
        return
    if kind == "step":
        step = dag.steps[number]
        label, detail, colour = step.label, step.detail, _colour(number)
    else:
        tensor = (dag.inputs if kind == "input" else dag.outputs)[number]
        label, detail, colour = tensor.name, tensor.detail, None
    tip = f"{label}: {detail}" if detail else label
    radius = 6.0 if kind == "step" else HEAD / 2
    picture.rectangle(box.x, box.y, box.width, box.height, "card", tip=tip, radius=radius)
    inset = 14.0 if kind == "step" else 20.0
    picture.text(box.x + inset, box.y + 19, shortened(label, (box.width - 2 * inset) * BOLD), "ink bold")
    picture.text(box.x + inset, box.y + 35, shortened(detail, (box.width - 2 * inset) * 1.1), "soft small")
    if kind != "step":
        return
    picture.rectangle(box.x, box.y + 6, 4, HEAD - 12, f"c{colour}", radius=2)
    half = box.width / 2 - inset
    for names, x, anchor in ((step.inputs, box.x + 8, "start"), (step.outputs, box.x + box.width - 8, "end")):
        for lane, name in enumerate(names):
            y = box.y + HEAD + (lane + 0.5) * LANE + 4
            picture.text(x, y, shortened(name, half), "ink small", anchor=anchor)


def _colour(step: int | None) -> int:
    """Return the colour of a step and of the tensors that it writes; grey for the inputs."""
    return PALETTE - 2 if step is None else step % (PALETTE - 2)


def _description(dag: Dag) -> str:
    inputs = ", ".join(tensor.name for tensor in dag.inputs)
    outputs = ", ".join(tensor.name for tensor in dag.outputs)
    steps = ", ".join(step.label for step in dag.steps)
    return f"From left to right: the inputs {inputs}, the steps {steps}, and the outputs {outputs}."


def _columns_of(dag: Dag) -> tuple[list[tuple[Node, ...]], list[tuple[Node, ...]]]:
    """Return the nodes of each column from the top, and the slots of each edge from left to right."""
    pairs = [_ends(dag, edge) for edge in dag.edges]
    level = _levels(dag, pairs)
    columns: list[list[Node]] = [[] for _ in range(max(level.values(), default=0) + 1)]
    for node, number in level.items():
        columns[number].append(node)
    sources: dict[Node, list[Node]] = {}
    ways: list[tuple[Node, ...]] = []
    slots = 0
    for source, target in pairs:
        passed: list[Node] = []
        for number in range(level[source] + 1, level[target]):
            slot = ("way", slots)
            slots += 1
            columns[number].append(slot)
            sources[slot] = [passed[-1] if passed else source]
            passed.append(slot)
        sources.setdefault(target, []).append(passed[-1] if passed else source)
        ways.append(tuple(passed))
    return _ordered(columns, sources), ways


def _levels(dag: Dag, pairs: Sequence[tuple[Node, Node]]) -> dict[Node, int]:
    """Return the column of each node: inputs first, outputs last, a step as far left as what it reads allows."""
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


def _ends(dag: Dag, edge: Edge) -> tuple[Node, Node]:
    inputs = [tensor.name for tensor in dag.inputs]
    outputs = [tensor.name for tensor in dag.outputs]
    source = ("input", inputs.index(edge.tensor)) if edge.source is None else ("step", edge.source)
    target = ("output", outputs.index(edge.tensor)) if edge.target is None else ("step", edge.target)
    return source, target
