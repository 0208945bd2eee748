"""A model's graph as Mermaid text (https://mermaid.js.org/syntax/flowchart.html)."""

from __future__ import annotations

from collections.abc import Iterator

from tidegate.rules.pictures.mermaid_text import link_label, quoted
from tidegate.triton.pictures.dag import Dag, Edge


def dag_mermaid(dag: Dag) -> str:
    """The flowchart of a model."""
    return "\n".join(_lines(dag)) + "\n"


def _lines(dag: Dag) -> Iterator[str]:
    inputs = {tensor.name: f"i{number}" for number, tensor in enumerate(dag.inputs)}
    outputs = {tensor.name: f"o{number}" for number, tensor in enumerate(dag.outputs)}
    yield "flowchart LR"
    for tensor in dag.inputs:
        yield f"  {inputs[tensor.name]}([{quoted(tensor.name, tensor.detail)}])"
    for number, step in enumerate(dag.steps):
        yield f"  s{number}[{quoted(step.label, step.detail)}]"
    for tensor in dag.outputs:
        yield f"  {outputs[tensor.name]}([{quoted(tensor.name, tensor.detail)}])"
    for edge in dag.edges:
        source = inputs[edge.tensor] if edge.source is None else f"s{edge.source}"
        target = outputs[edge.tensor] if edge.target is None else f"s{edge.target}"
        yield f"  {source} --> {_label(edge)}{target}"


def _label(edge: Edge) -> str:
    """A tensor's name and type; nothing where the input or output at one end says them already."""
    return "" if edge.source is None or edge.target is None else link_label(edge.tensor, edge.detail)
