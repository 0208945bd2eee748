"""An ensemble as a graph: its settings, its steps, and who writes and reads each tensor.

The conditions are those of ValidateEnsembleSchedulingConfig and ValidateEnsembleConfig in Triton's core
(https://github.com/triton-inference-server/core, `src/model_config_utils.cc` and
`src/ensemble_scheduler/ensemble_utils.cc`), which stop at the first, and those that Triton does not make.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tidegate.language.words import did_you_mean
from tidegate.model_layout import CONFIG
from tidegate.models.closure import cycle_in, way_back
from tidegate.models.config import NO_TYPE, data_type
from tidegate.models.lint.folder import CheckedFolder, Field, Repository, by_name
from tidegate.models.lint.tensors import ANY_SIZE, compatible

FORBIDDEN = ("instance_group", "optimization", "model_warmup", "dynamic_batching", "sequence_batching")
"""Fields that an ensemble must not have."""


@dataclass(frozen=True, slots=True)
class End:
    """One end of a tensor: an input or output of the ensemble itself (`step` is None) or of a step.

    `tensor` is its declaration, if known; `batches` whether its model batches; `line` where it is mapped.
    """

    owner: str
    name: str
    step: int | None
    tensor: Any
    batches: bool
    line: int

    def __str__(self) -> str:
        return f"{self.owner} {self.name!r}"


@dataclass(slots=True)
class Flow:
    """The ends that write and read each tensor of an ensemble, by the tensor's name."""

    written: dict[str, list[End]] = field(default_factory=dict)
    read: dict[str, list[End]] = field(default_factory=dict)


def check_ensemble(model: CheckedFolder, repository: Repository) -> None:
    """Check an ensemble and how it fits its steps."""
    if not model.is_ensemble:
        return
    _check_forbidden(model)
    ensemble, text = model.config.ensemble_scheduling, model.text
    if model.config.HasField("ensemble_scheduling") and not ensemble.step and text.whole("ensemble_scheduling", 0):
        model.report("ensemble-step", "there is no step", "add step [ { … } ]", at=("ensemble_scheduling",))
    for step in model.fields("ensemble_scheduling", "step"):
        _check_step(model, step, repository)
    flow = flow_of(model, repository)
    for name, writers in flow.written.items():
        for reader in flow.read.get(name, ()):
            _check_pair(model, name, writers[0], reader)
    if ensemble.step:
        _check_writers(model, flow)
        _check_readers(model, flow)
        _check_order(model)
        _check_decoupled(model, repository)


def flow_of(model: CheckedFolder, repository: Repository) -> Flow:
    flow = Flow()
    _add_own(model, "input", flow.written)
    for step in model.fields("ensemble_scheduling", "step"):
        called = repository.model(step.value.model_name)
        for kind, ends in (("output", flow.written), ("input", flow.read)):
            declared = by_name(getattr(called.config, kind)) if called is not None and called.text.whole() else {}
            lines = map_lines(step, f"{kind}_map")
            for name, tensor_name in getattr(step.value, f"{kind}_map").items():
                owner, number = f"{step.value.model_name}'s {kind}", int(step.place[-1])
                joins = called is not None and called.config.max_batch_size > 0
                end = End(owner, name, number, declared.get(name), joins, lines.get(name, step.line()))
                ends.setdefault(tensor_name, []).append(end)
    _add_own(model, "output", flow.read)
    return flow


def _add_own(model: CheckedFolder, kind: str, ends: dict[str, list[End]]) -> None:
    batches = model.config.max_batch_size > 0
    for tensor in model.fields(kind):
        name = tensor.value.name
        end = End(f"the ensemble's {kind}", name, None, tensor.value, batches, tensor.line("name"))
        ends.setdefault(name, []).append(end)


def map_lines(step: Field, name: str) -> Mapping[str, int]:
    """Return the lines of a map of a step, by the names of the step's own tensors."""
    return dict(step.model.text.lines.entries(*step.place, name))


def _check_forbidden(model: CheckedFolder) -> None:
    for name in FORBIDDEN:
        value = getattr(model.config, name)
        repeated = name in ("instance_group", "model_warmup")
        if value if repeated else model.config.HasField(name):
            model.report("ensemble-forbidden", f"an ensemble has no {name}", "its steps may have it", at=(name,))
    if model.config.default_model_filename:
        message, at = "an ensemble has no file of its own", ("default_model_filename",)
        model.report("ensemble-forbidden", message, "remove it", at=at)


def _check_step(model: CheckedFolder, step: Field, repository: Repository) -> None:
    name, noun = step.value.model_name, _noun(step)
    if not name:
        if step.whole:
            step.report("ensemble-step", f"{noun} names no model", "say model_name")
        return
    for kind in ("input_map", "output_map"):
        if not getattr(step.value, kind) and step.whole:
            step.report("ensemble-step", f"{noun} has no {kind}", f'say {kind} {{ key: "…" value: "…" }}')
    called = repository.model(name)
    if called is None:
        hint = did_you_mean(name, set(repository.names()), "model")
        step.report("step-missing", f"there is no model {name!r}", hint, "model_name")
        return
    _check_version(step, called)
    for kind in ("input", "output"):
        if getattr(called.config, kind) and called.text.whole():
            _check_map(step, called, kind)
    _check_required(model, step, called)
    most, wanted = called.config.max_batch_size, model.config.max_batch_size
    if 0 < most < wanted:
        message = f"max_batch_size is {wanted}, but {name} takes at most {most}"
        model.report("ensemble-batch", message, f"say {most} or less", at=("max_batch_size",))
    way = way_back(model.name, name, repository.steps)
    if way:
        message = f"the ensemble calls itself: {' -> '.join(way)}"
        step.report("ensemble-cycle", message, "call a model that does not lead back", "model_name")


def _noun(step: Field) -> str:
    number = f"step {int(step.place[-1]) + 1}"
    return f"{number} ({step.value.model_name})" if step.value.model_name else number


def _check_version(step: Field, called: CheckedFolder) -> None:
    version, noun = step.value.model_version, _noun(step)
    if version < 1:
        given = f"model_version: {version}" if version else "no model_version"
        hint = f"pin it: model_version: {called.versions[-1] if called.versions else 1}"
        step.report("step-unpinned", f"{noun} has {given}: it follows every new version at once", hint, "model_version")
    elif version not in called.versions:
        if called.versions:
            message = f"{noun} pins version {version}, which {called.name} does not have"
            step.report("step-missing", message, f"there: {', '.join(map(str, called.versions))}", "model_version")
    elif called.config.HasField("version_policy") and called.served and version not in called.served:
        # If the step has no policy, Tidegate loads the pinned versions.
        served = ", ".join(map(str, called.served))
        message = f"{noun} pins version {version}, but {called.name}'s version_policy serves {served} alone"
        hint = f"write version_policy: {{ all {{}} }} in {called.name}/{CONFIG}"
        step.report("step-unserved", message, hint, "model_version")


def _check_map(step: Field, called: CheckedFolder, kind: str) -> None:
    declared = by_name(getattr(called.config, kind))
    lines = map_lines(step, f"{kind}_map")
    for name in getattr(step.value, f"{kind}_map"):
        if name not in declared:
            message = f"{_noun(step)}: {called.name} has no {kind} {name!r}"
            step.model.report("ensemble-map", message, did_you_mean(name, set(declared), kind), line=lines.get(name, 0))


def _check_required(model: CheckedFolder, step: Field, called: CheckedFolder) -> None:
    """Report inputs that the called model requires and that the step does not map, or maps from an optional input."""
    given, mapped, lines = by_name(model.config.input), step.value.input_map, map_lines(step, "input_map")
    required = {each.value.name: each for each in reversed(list(called.fields("input"))) if not each.value.optional}
    for name, tensor in required.items():
        if not called.text.whole() or not step.whole or not tensor.whole:
            continue
        source = given.get(mapped[name]) if name in mapped else None
        if source is not None and source.optional:
            message = f"{_noun(step)}: the optional input {source.name!r} goes to {name!r}, which the step requires"
            hint = f"remove optional from {source.name!r}, or make {name!r} optional in {called.name}"
            model.report("ensemble-optional", message, hint, line=lines.get(name, 0))
        elif mapped and name not in mapped:
            message = f"{_noun(step)}: input {name!r} is not mapped"
            step.report("ensemble-map", message, "map it, or make it optional in the step")


def _check_writers(model: CheckedFolder, flow: Flow) -> None:
    for name, ends in flow.written.items():
        inputs = [end for end in ends if end.step is None]
        steps = [end for end in ends if end.step is not None]
        for end in steps[0 if inputs else 1 :]:
            if inputs:
                message = f"{end} is written to {name!r}, which is an input: Triton would never answer"
                hint = "give it a name of its own"
            else:
                message, hint = f"{name!r} is written twice", f"{steps[0]} writes it on line {steps[0].line}"
            model.report("ensemble-rewritten", message, hint, line=end.line)
        if name not in flow.read:
            kind, hint = ("input", "remove it") if inputs else ("tensor", "remove it from the output_map")
            model.report("ensemble-unused", f"{kind} {name!r} is not read", hint, line=ends[0].line)


def _check_readers(model: CheckedFolder, flow: Flow) -> None:
    steps = list(model.fields("ensemble_scheduling", "step"))
    if not (model.text.whole() and model.text.whole("ensemble_scheduling", 0) and all(step.whole for step in steps)):
        return  # what could not be read may be a writer
    for name, ends in flow.read.items():
        if name not in flow.written:
            hint = did_you_mean(name, set(flow.written), "tensor")
            for end in ends:
                kind = f"output {name!r}" if end.step is None else f"{name!r}, read by {end},"
                model.report("ensemble-unwritten", f"{kind} is not written by any step", hint, line=end.line)


def _check_order(model: CheckedFolder) -> None:
    steps = list(model.fields("ensemble_scheduling", "step"))
    given = {tensor.name for tensor in model.config.input}
    writers: dict[str, int] = {}
    for number, step in enumerate(steps):
        for tensor in step.value.output_map.values():
            if tensor not in given:
                writers.setdefault(tensor, number)
    needs = [{writers[each] for each in step.value.input_map.values() if each in writers} for step in steps]
    waiting = [steps[number] for number in range(len(steps)) if cycle_in([number], needs.__getitem__)]
    others = ", ".join(step.value.model_name for step in waiting)
    for step in waiting:
        step.report("ensemble-cycle", f"{_noun(step)} waits for its own output", f"these wait for each other: {others}")


def _check_pair(model: CheckedFolder, name: str, writer: End, reader: End) -> None:
    if writer.tensor is None or reader.tensor is None:
        return
    given, wanted = data_type(writer.tensor), data_type(reader.tensor)
    if given != wanted and NO_TYPE not in (given, wanted):
        message = f"tensor {name!r}: {writer} is {given}, but {reader} is {wanted}"
        model.report("ensemble-data-type", message, "make them the same", line=reader.line)
    (dims, full), (others, other_full) = _dims(writer), _dims(reader)
    if not dims or not others or any(size == 0 or size < ANY_SIZE for size in (*dims, *others)):
        return
    if not compatible(dims, others) and not compatible(full, other_full):
        message = f"tensor {name!r}: {writer} has the shape {full}, but {reader} has {other_full}"
        hint = "a leading -1 is the batch" if writer.batches != reader.batches else "make them the same"
        model.report("ensemble-shape", message, hint, line=reader.line)
    elif writer.batches and not reader.batches and not compatible(full, other_full) and model.config.max_batch_size > 1:
        # Triton loads this, and then refuses every request of more than one row.
        message = f"tensor {name!r}: {reader} takes one row, so every larger batch is refused"
        hint = "let the step batch, or set the ensemble's max_batch_size to 1"
        model.report("ensemble-batch", message, hint, line=reader.line)


def _dims(end: End) -> tuple[list[int], list[int]]:
    """Return the dims of a tensor, without and with the batch's. As in Triton, an ensemble's own tensors count as reshaped."""
    is_reshaped = end.step is None and end.tensor.HasField("reshape")
    dims = list(end.tensor.reshape.shape if is_reshaped else end.tensor.dims)
    return dims, [ANY_SIZE, *dims] if end.batches else dims


def _check_decoupled(model: CheckedFolder, repository: Repository) -> None:
    # Decoupled steps give different numbers of answers, so a step cannot join those of two.
    origin: dict[str, int | None] = {tensor.name: None for tensor in model.config.input}
    pending = list(model.fields("ensemble_scheduling", "step"))
    while ready := [step for step in pending if all(name in origin for name in step.value.input_map.values())]:
        pending = [step for step in pending if step not in ready]
        for step in ready:
            name, number = step.value.model_name, int(step.place[-1])
            sources = {origin[tensor] for tensor in step.value.input_map.values()}
            if len(sources) > 1:
                message = f"step {number + 1} ({name}) joins answers of different decoupled steps"
                step.report("ensemble-map", message, "read from one of them alone")
            called = repository.model(name)
            decoupled = called is not None and called.config.model_transaction_policy.decoupled
            source = number if decoupled else next(iter(sources), None)
            origin.update(dict.fromkeys(step.value.output_map.values(), source))
