"""An ensemble as a graph: what it may say, its steps, and who writes and reads each tensor.

The conditions are those of ValidateEnsembleSchedulingConfig and ValidateEnsembleConfig in Triton's core
(https://github.com/triton-inference-server/core, `src/model_config_utils.cc` and
`src/ensemble_scheduler/ensemble_utils.cc`), which stop at the first, and those that Triton does not make.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tidegate.rules.shape import did_you_mean
from tidegate.triton.checks.folder import ModelFolder, Repository, by_name
from tidegate.triton.model_config import CONFIG

FORBIDDEN = ("instance_group", "optimization", "model_warmup", "dynamic_batching", "sequence_batching")
"""Fields that an ensemble must not have."""


@dataclass(frozen=True, slots=True)
class End:
    """One end of a tensor: an input or output of the ensemble itself (`step` None) or of a step.

    `tensor` is its declaration, None where it is unknown; `batches` whether its model batches; `line` where it is mapped.
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
    """Who writes and who reads each tensor of an ensemble, by the tensor's name."""

    written: dict[str, list[End]] = field(default_factory=dict)
    read: dict[str, list[End]] = field(default_factory=dict)


def check_ensemble(model: ModelFolder, repository: Repository) -> None:
    """Check an ensemble and how it fits its steps."""
    if not model.is_ensemble:
        return
    _check_forbidden(model)
    ensemble, lines = model.message.ensemble_scheduling, model.config
    if model.message.HasField("ensemble_scheduling") and not ensemble.step and lines.whole("ensemble_scheduling", 0):
        line = lines.line("ensemble_scheduling")
        model.report("ensemble-step", "there is no step", "add step [ { … } ]", line=line)
    for number, step in enumerate(ensemble.step):
        _check_step(model, number, step, repository)
    _check_nesting(model, repository)
    if ensemble.step:
        flow = flow_of(model, repository)
        _check_writers(model, flow)
        _check_readers(model, flow)
        _check_order(model)


def flow_of(model: ModelFolder, repository: Repository) -> Flow:
    """The tensors of an ensemble with their ends."""
    flow, config, lines = Flow(), model.message, model.config
    batches = config.max_batch_size > 0
    for number, tensor in enumerate(config.input):
        line = lines.line("input", number, "name")
        flow.written.setdefault(tensor.name, []).append(
            End("the ensemble's input", tensor.name, None, tensor, batches, line)
        )
    for number, step in enumerate(config.ensemble_scheduling.step):
        called = repository.model(step.model_name)
        for kind, ends in (("output", flow.written), ("input", flow.read)):
            declared = by_name(getattr(called.message, kind)) if called is not None and called.config.whole() else {}
            at = step_lines(model, number, f"{kind}_map")
            for name, tensor_name in getattr(step, f"{kind}_map").items():
                end = End(
                    f"{step.model_name}'s {kind}",
                    name,
                    number,
                    declared.get(name),
                    called is not None and called.message.max_batch_size > 0,
                    at.get(name, lines.line("ensemble_scheduling", 0, "step", number)),
                )
                ends.setdefault(tensor_name, []).append(end)
    for number, tensor in enumerate(config.output):
        line = lines.line("output", number, "name")
        flow.read.setdefault(tensor.name, []).append(
            End("the ensemble's output", tensor.name, None, tensor, batches, line)
        )
    return flow


def step_lines(model: ModelFolder, number: int, kind: str) -> Mapping[str, int]:
    """The lines of a step's map, by the name of the step's own tensor."""
    entries = model.config.lines.entries("ensemble_scheduling", 0, "step", number, kind)
    return {key: line for key, _, line in entries}


def _check_forbidden(model: ModelFolder) -> None:
    for name in FORBIDDEN:
        value = getattr(model.message, name)
        repeated = name in ("instance_group", "model_warmup")
        if value if repeated else model.message.HasField(name):
            message = f"an ensemble has no {name}"
            model.report("ensemble-forbidden", message, "its steps may have it", line=model.config.line(name))
    if model.message.default_model_filename:
        line = model.config.line("default_model_filename")
        model.report("ensemble-forbidden", "an ensemble has no file of its own", "remove it", line=line)


def _check_step(model: ModelFolder, number: int, step: Any, repository: Repository) -> None:
    place = ("ensemble_scheduling", 0, "step", number)
    line, whole = model.config.line(*place), model.config.whole(*place)
    noun = f"step {number + 1} ({step.model_name})" if step.model_name else f"step {number + 1}"
    if not step.model_name:
        if whole:
            model.report("ensemble-step", f"{noun} names no model", "say model_name", line=line)
        return
    for kind in ("input_map", "output_map"):
        if not getattr(step, kind) and whole:
            hint = f'say {kind} {{ key: "…" value: "…" }}'
            model.report("ensemble-step", f"{noun} has no {kind}", hint, line=line)
    called = repository.model(step.model_name)
    if called is None:
        at = model.config.line(*place, "model_name")
        hint = did_you_mean(step.model_name, set(repository.names()), "model")
        model.report("step-missing", f"there is no model {step.model_name!r}", hint, line=at)
        return
    _check_version(model, place, step, called, noun)
    _check_maps(model, number, step, called, noun)
    most, wanted = called.message.max_batch_size, model.message.max_batch_size
    if 0 < most < wanted:
        at = model.config.line("max_batch_size")
        message = f"max_batch_size is {wanted}, but {step.model_name} takes at most {most}"
        model.report("ensemble-batch", message, f"say {most} or less", line=at)


def _check_version(model: ModelFolder, place: tuple[str | int, ...], step: Any, called: ModelFolder, noun: str) -> None:
    line = model.config.line(*place, "model_version")
    there = ", ".join(map(str, called.versions)) or "none"
    if step.model_version < 1:
        said = "model_version: -1" if step.model_version == -1 else f"model_version: {step.model_version}"
        if step.model_version == 0:
            said = "no model_version"
        latest = called.versions[-1] if called.versions else 1
        message = f"{noun} has {said}: it follows every new version at once"
        model.report("step-unpinned", message, f"pin it: model_version: {latest}", line=line)
    elif step.model_version not in called.versions and called.versions:
        message = f"{noun} pins version {step.model_version}, which {step.model_name} does not have"
        model.report("step-missing", message, f"there: {there}", line=line)
    elif step.model_version in called.versions and called.message.HasField("version_policy"):
        _check_served(model, step, called, noun, line)


def _check_served(model: ModelFolder, step: Any, called: ModelFolder, noun: str, line: int) -> None:
    """Report a pin of what the step's own policy leaves out. Where it says none, Tidegate loads what is pinned."""
    if called.served and step.model_version not in called.served:
        served = ", ".join(map(str, called.served))
        message = (
            f"{noun} pins version {step.model_version}, but {step.model_name}'s version_policy serves {served} alone"
        )
        hint = f"write version_policy: {{ all {{}} }} in {step.model_name}/{CONFIG}"
        model.report("step-unserved", message, hint, line=line)


def _check_maps(model: ModelFolder, number: int, step: Any, called: ModelFolder, noun: str) -> None:
    for kind in ("input", "output"):
        declared = by_name(getattr(called.message, kind))
        if not declared or not called.config.whole():
            continue
        at = step_lines(model, number, f"{kind}_map")
        mapped = getattr(step, f"{kind}_map")
        for name in mapped:
            if name not in declared:
                hint = did_you_mean(name, set(declared), kind)
                message = f"{noun}: {step.model_name} has no {kind} {name!r}"
                model.report("ensemble-map", message, hint, line=at.get(name, 0))
        place = ("ensemble_scheduling", 0, "step", number)
        for order, (name, tensor) in enumerate(declared.items()):
            whole = model.config.whole(*place) and called.config.whole(kind, order)
            given = by_name(model.message.input).get(mapped[name]) if name in mapped else None
            if kind == "input" and given is not None and given.optional and not tensor.optional and whole:
                message = f"{noun}: the optional input {given.name!r} goes to {name!r}, which the step requires"
                hint = f"remove optional from {given.name!r}, or make {name!r} optional in {step.model_name}"
                model.report("ensemble-optional", message, hint, line=at.get(name, 0))
            if kind == "input" and name not in mapped and not tensor.optional and mapped and whole:
                message = f"{noun}: input {name!r} is not mapped"
                hint = "map it, or make it optional in the step"
                model.report("ensemble-map", message, hint, line=model.config.line(*place))


def _check_nesting(model: ModelFolder, repository: Repository) -> None:
    """Report an ensemble that calls itself, directly or through others."""
    for number, step in enumerate(model.message.ensemble_scheduling.step):
        circle = _circle(model.name, step.model_name, repository)
        if circle:
            line = model.config.line("ensemble_scheduling", 0, "step", number, "model_name")
            message = f"the ensemble calls itself: {' -> '.join([model.name, *circle])}"
            model.report("ensemble-cycle", message, "call a model that does not lead back", line=line)


def _circle(name: str, start: str, repository: Repository) -> list[str]:
    """The way from `start` to the model `name` through ensembles' steps; empty where there is none."""
    pending, seen = [[start]], {start}
    while pending:
        way = pending.pop()
        if way[-1] == name:
            return way
        for step in repository.steps(way[-1]):
            if step not in seen:
                seen.add(step)
                pending.append([*way, step])
    return []


def _check_writers(model: ModelFolder, flow: Flow) -> None:
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


def _check_readers(model: ModelFolder, flow: Flow) -> None:
    for name, ends in flow.read.items():
        if name in flow.written:
            continue
        if not _complete_outputs(model):
            continue
        hint = did_you_mean(name, set(flow.written), "tensor")
        for end in ends:
            kind = f"output {name!r}" if end.step is None else f"{name!r}, read by {end},"
            model.report("ensemble-unwritten", f"{kind} is not written by any step", hint, line=end.line)


def _complete_outputs(model: ModelFolder) -> bool:
    """Whether every writer is known, so that a missing one is a mistake of its own."""
    steps = range(len(model.message.ensemble_scheduling.step))
    places: list[tuple[str | int, ...]] = [("ensemble_scheduling", 0, "step", number) for number in steps]
    return all(model.config.whole(*place) for place in [(), ("ensemble_scheduling", 0), *places])


def _check_order(model: ModelFolder) -> None:
    """Report steps that wait for each other."""
    waiting = unordered(model)
    for number in waiting:
        step = model.message.ensemble_scheduling.step[number]
        line = model.config.line("ensemble_scheduling", 0, "step", number)
        others = ", ".join(model.message.ensemble_scheduling.step[other].model_name for other in waiting)
        message = f"step {number + 1} ({step.model_name}) waits for its own output"
        model.report("ensemble-cycle", message, f"these wait for each other: {others}", line=line)


def unordered(model: ModelFolder) -> list[int]:
    """The steps that lie on a circle of tensors."""
    steps = model.message.ensemble_scheduling.step
    given = {tensor.name for tensor in model.message.input}
    writers: dict[str, int] = {}
    for number, step in enumerate(steps):
        for tensor in step.output_map.values():
            if tensor not in given:
                writers.setdefault(tensor, number)
    needs = {
        number: {writers[tensor] for tensor in step.input_map.values() if tensor in writers}
        for number, step in enumerate(steps)
    }
    return [number for number in needs if number in set(_reached(number, needs))]


def _reached(start: int, needs: Mapping[int, set[int]]) -> Iterator[int]:
    pending, seen = list(needs[start]), set[int]()
    while pending:
        number = pending.pop()
        if number not in seen:
            seen.add(number)
            yield number
            pending += needs[number]
