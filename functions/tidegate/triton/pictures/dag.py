"""What a picture of a model shows: its inputs, the steps that these flow through, and its outputs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.triton.checks.ensemble import flow_of, step_lines
from tidegate.triton.checks.folder import ModelFolder, Repository
from tidegate.triton.golden.tensors import wire_type


@dataclass(frozen=True, slots=True)
class Tensor:
    """An input or an output of the drawn model: its name, and its type and shape of a row in words."""

    name: str
    detail: str


@dataclass(frozen=True, slots=True)
class Step:
    """A model that is called: its name and version, its backend in words, and the tensors that it takes and gives."""

    label: str
    detail: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Edge:
    """A tensor's way from who writes it to who reads it.

    `source` and `target` are steps by their place; None is the model itself: its input, or its output. `source_name` and
    `target_name` are the names at both ends, `tensor` the name in between, `detail` its type and shape in words.
    """

    source: int | None
    source_name: str
    target: int | None
    target_name: str
    tensor: str
    detail: str


@dataclass(frozen=True, slots=True)
class Dag:
    """A model as a graph. A model that is no ensemble is its own only step."""

    model: str
    inputs: tuple[Tensor, ...]
    steps: tuple[Step, ...]
    outputs: tuple[Tensor, ...]
    edges: tuple[Edge, ...]


def dag_of(model: ModelFolder, repository: Repository) -> Dag:
    """The graph of a model whose config has no errors."""
    inputs = tuple(Tensor(each.name, _words(each)) for each in model.message.input)
    outputs = tuple(Tensor(each.name, _words(each)) for each in model.message.output)
    if not model.is_ensemble:
        names = tuple(each.name for each in inputs), tuple(each.name for each in outputs)
        step = Step(model.name, _detail(model), *names)
        edges = [Edge(None, each.name, 0, each.name, each.name, each.detail) for each in inputs]
        edges += [Edge(0, each.name, None, each.name, each.name, each.detail) for each in outputs]
        return Dag(model.name, inputs, (step,), outputs, tuple(edges))
    steps = tuple(
        _step(model, number, step, repository) for number, step in enumerate(model.message.ensemble_scheduling.step)
    )
    return Dag(model.name, inputs, steps, outputs, tuple(_edges(model, repository, steps)))


def _edges(model: ModelFolder, repository: Repository, steps: Sequence[Step]) -> list[Edge]:
    """The tensors of an ensemble, in the order of who writes them, then of who reads them."""
    flow, found = flow_of(model, repository), list[tuple[tuple[int, int, int, int], Edge]]()
    given = [each.name for each in model.message.input]
    taken = [each.name for each in model.message.output]
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


def _step(model: ModelFolder, number: int, step: Any, repository: Repository) -> Step:
    called = repository.model(step.model_name)
    version = f"/{step.model_version}" if step.model_version > 0 else ", latest version"
    detail = "" if called is None else _detail(called)
    inputs = _in_order(step.input_map, step_lines(model, number, "input_map"))
    outputs = _in_order(step.output_map, step_lines(model, number, "output_map"))
    return Step(f"{step.model_name}{version}", detail, inputs, outputs)


def _in_order(names: Iterable[str], lines: Mapping[str, int]) -> tuple[str, ...]:
    """The names as the file has them: a map has no order of its own."""
    return tuple(sorted(names, key=lambda name: (lines.get(name, 0), name)))


def _detail(model: ModelFolder) -> str:
    if model.is_ensemble:
        return f"ensemble of {len(model.message.ensemble_scheduling.step)} steps"
    most = model.message.max_batch_size
    return f"{model.backend or 'unknown backend'}, {f'batches up to {most}' if most else 'no batches'}"


def _words(tensor: Any) -> str:
    sizes = ", ".join(str(size) for size in tensor.dims)
    return f"{wire_type(tensor)} [{sizes}]{', optional' if getattr(tensor, 'optional', False) else ''}"
