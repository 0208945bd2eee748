"""A model as a graph: its inputs, steps and outputs; also as Mermaid text (https://mermaid.js.org/syntax/flowchart.html)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.analysis.pictures.mermaid import link_label, quoted
from tidegate.models.golden.requests import wire_type
from tidegate.models.lint.ensemble import flow_of, map_lines
from tidegate.models.lint.folder import CheckedFolder, Field, Repository


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or an output of the model; `detail` is its type and the shape of a row."""

    name: str
    detail: str


@dataclass(frozen=True, slots=True)
class Step:
    """A model that is called: its name and version, its backend, and its tensors."""

    label: str
    detail: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Edge:
    """A tensor from its writer to a reader.

    `source` and `target` are indexes of steps; None is the model itself. `source_name` and `target_name` are the names at both
    ends, `tensor` the name in between, `detail` its type and shape.
    """

    source: int | None
    source_name: str
    target: int | None
    target_name: str
    tensor: str
    detail: str


@dataclass(frozen=True, slots=True)
class Dag:
    """A model as a graph. Other models than ensembles are their own only step."""

    model: str
    inputs: tuple[Tensor, ...]
    steps: tuple[Step, ...]
    outputs: tuple[Tensor, ...]
    edges: tuple[Edge, ...]


def dag_of(model: CheckedFolder, repository: Repository) -> Dag:
    """Return the graph of a model, whose config must have no errors."""
    inputs = tuple(Tensor(each.name, _words(each)) for each in model.config.input)
    outputs = tuple(Tensor(each.name, _words(each)) for each in model.config.output)
    if not model.is_ensemble:
        names = tuple(each.name for each in inputs), tuple(each.name for each in outputs)
        step = Step(model.name, _detail(model), *names)
        edges = [Edge(None, each.name, 0, each.name, each.name, each.detail) for each in inputs]
        edges += [Edge(0, each.name, None, each.name, each.name, each.detail) for each in outputs]
        return Dag(model.name, inputs, (step,), outputs, tuple(edges))
    steps = tuple(_step(step, repository) for step in model.fields("ensemble_scheduling", "step"))
    return Dag(model.name, inputs, steps, outputs, tuple(_edges(model, repository, steps)))


def _edges(model: CheckedFolder, repository: Repository, steps: Sequence[Step]) -> list[Edge]:
    """Return the tensors of an ensemble, in the order of their writers, then of their readers."""
    flow, found = flow_of(model, repository), list[tuple[tuple[int, int, int, int], Edge]]()
    given = [each.name for each in model.config.input]
    taken = [each.name for each in model.config.output]
    for tensor, writers in flow.written.items():
        source = writers[0]
        for reader in flow.read.get(tensor, ()):
            declared = source.tensor if source.tensor is not None else reader.tensor
            detail = "" if declared is None else _words(declared)
            order = (
                -1 if source.step is None else source.step,
                list(given if source.step is None else steps[source.step].outputs).index(source.name),
                len(steps) if reader.step is None else reader.step,
                list(taken if reader.step is None else steps[reader.step].inputs).index(reader.name),
            )
            found.append((order, Edge(source.step, source.name, reader.step, reader.name, tensor, detail)))
    return [edge for _, edge in sorted(found, key=lambda each: each[0])]


def _step(step: Field, repository: Repository) -> Step:
    value, called = step.value, repository.model(step.value.model_name)
    version = f"/{value.model_version}" if value.model_version > 0 else ", latest version"
    detail = "" if called is None else _detail(called)

    def names(field: str) -> tuple[str, ...]:
        # In the order of the file: a map has none.
        lines = map_lines(step, field)
        return tuple(sorted(getattr(value, field), key=lambda name: (lines.get(name, 0), name)))

    return Step(f"{value.model_name}{version}", detail, names("input_map"), names("output_map"))


def _detail(model: CheckedFolder) -> str:
    if model.is_ensemble:
        return f"ensemble of {len(model.config.ensemble_scheduling.step)} steps"
    most = model.config.max_batch_size
    return f"{model.backend or 'unknown backend'}, {f'batches up to {most}' if most else 'no batches'}"


def _words(tensor: Any) -> str:
    sizes = ", ".join(str(size) for size in tensor.dims)
    return f"{wire_type(tensor)} [{sizes}]{', optional' if getattr(tensor, 'optional', False) else ''}"


def dag_mermaid(dag: Dag) -> str:
    """Return the flowchart of a model."""
    inputs = {tensor.name: f"i{number}" for number, tensor in enumerate(dag.inputs)}
    outputs = {tensor.name: f"o{number}" for number, tensor in enumerate(dag.outputs)}
    lines = ["flowchart LR"]
    lines += [f"  {inputs[tensor.name]}([{quoted(tensor.name, tensor.detail)}])" for tensor in dag.inputs]
    lines += [f"  s{number}[{quoted(step.label, step.detail)}]" for number, step in enumerate(dag.steps)]
    lines += [f"  {outputs[tensor.name]}([{quoted(tensor.name, tensor.detail)}])" for tensor in dag.outputs]
    for edge in dag.edges:
        source = inputs[edge.tensor] if edge.source is None else f"s{edge.source}"
        target = outputs[edge.tensor] if edge.target is None else f"s{edge.target}"
        # The nodes of inputs and outputs have the label of their tensor.
        is_inner = edge.source is not None and edge.target is not None
        lines.append(f"  {source} --> {link_label(edge.tensor, edge.detail) if is_inner else ''}{target}")
    return "\n".join(lines) + "\n"
