"""Types and shapes along an ensemble's tensors."""

from __future__ import annotations

from typing import Any

from tidegate.triton.checks.ensemble import End, flow_of
from tidegate.triton.checks.folder import ModelFolder, Repository
from tidegate.triton.checks.tensors import ANY_SIZE, compatible


def check_ensemble_tensors(model: ModelFolder, repository: Repository) -> None:
    """Check that what is written fits what reads it, and that decoupled steps are not mixed."""
    if not model.is_ensemble:
        return
    flow = flow_of(model, repository)
    for name, writers in flow.written.items():
        for reader in flow.read.get(name, ()):
            _check_pair(model, name, writers[0], reader)
    _check_decoupled(model, repository)


def _check_pair(model: ModelFolder, name: str, writer: End, reader: End) -> None:
    if writer.tensor is None or reader.tensor is None:
        return
    given, wanted = _type(writer.tensor), _type(reader.tensor)
    if given and wanted and given != wanted:
        message = f"tensor {name!r}: {writer} is {given}, but {reader} is {wanted}"
        model.report("ensemble-data-type", message, "make them the same", line=reader.line)
    dims, others = _dims(writer), _dims(reader)
    if not dims or not others or any(size == 0 or size < ANY_SIZE for size in (*dims, *others)):
        return
    full, other_full = _full(writer, dims), _full(reader, others)
    if not compatible(dims, others) and not compatible(full, other_full):
        message = f"tensor {name!r}: {writer} has the shape {full}, but {reader} has {other_full}"
        hint = "a leading -1 is the batch" if writer.batches != reader.batches else "make them the same"
        model.report("ensemble-shape", message, hint, line=reader.line)
    elif (
        writer.batches and not reader.batches and not compatible(full, other_full) and model.message.max_batch_size > 1
    ):
        # Triton lets this pass and then refuses every request of more than one row.
        message = f"tensor {name!r}: {reader} takes one row, so every larger batch is refused"
        hint = "let the step batch, or set the ensemble's max_batch_size to 1"
        model.report("ensemble-batch", message, hint, line=reader.line)


def _type(tensor: Any) -> str:
    known = tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number
    return known[tensor.data_type].name if tensor.data_type in known and tensor.data_type else ""


def _dims(end: End) -> list[int]:
    # As Triton does: an ensemble's own tensors count as reshaped, a step's as declared.
    if end.step is None and end.tensor.HasField("reshape"):
        return list(end.tensor.reshape.shape)
    return list(end.tensor.dims)


def _full(end: End, dims: list[int]) -> list[int]:
    return [ANY_SIZE, *dims] if end.batches else dims


def _check_decoupled(model: ModelFolder, repository: Repository) -> None:
    """Report steps that join the answers of different decoupled steps, which come in different numbers."""
    steps = model.message.ensemble_scheduling.step
    origin: dict[str, int | None] = {tensor.name: None for tensor in model.message.input}
    pending = dict(enumerate(steps))
    while pending:
        ready = [number for number, step in pending.items() if all(name in origin for name in step.input_map.values())]
        if not ready:
            return
        for number in ready:
            step = pending.pop(number)
            sources = {origin[name] for name in step.input_map.values()}
            if len(sources) > 1:
                line = model.config.line("ensemble_scheduling", 0, "step", number)
                message = f"step {number + 1} ({step.model_name}) joins answers of different decoupled steps"
                model.report("ensemble-map", message, "read from one of them alone", line=line)
            called = repository.model(step.model_name)
            decoupled = called is not None and called.message.model_transaction_policy.decoupled
            source = number if decoupled else next(iter(sources), None)
            origin.update(dict.fromkeys(step.output_map.values(), source))
