"""What a config names beside its inputs and outputs: batch inputs and outputs, states, and an environment's archive."""

from __future__ import annotations

from typing import Any

from tidegate.rules.shape import did_you_mean
from tidegate.triton.checks.folder import ModelFolder
from tidegate.triton.checks.tensors import compatible

OWN_FOLDER = "$$TRITON_MODEL_DIRECTORY"
ENVIRONMENT = "EXECUTION_ENV_PATH"


def check_references(model: ModelFolder) -> None:
    """Check that what the config names is there."""
    _check_batch_tensors(model)
    _check_states(model)
    _check_environment(model)


def _check_batch_tensors(model: ModelFolder) -> None:
    inputs = {tensor.name for tensor in model.message.input}
    outputs = {tensor.name for tensor in model.message.output}
    for field in ("batch_input", "batch_output"):
        for number, each in enumerate(getattr(model.message, field)):
            line = model.config.line(field, number)
            for name in each.source_input:
                if name not in inputs:
                    hint = did_you_mean(name, inputs, "input")
                    model.report("tensor-option", f"{field}: there is no input {name!r}", hint, line=line)
            for name in each.target_name if field == "batch_output" else ():
                if name not in outputs:
                    hint = did_you_mean(name, outputs, "output")
                    model.report("tensor-option", f"{field}: there is no output {name!r}", hint, line=line)


def _check_states(model: ModelFolder) -> None:
    for number, state in enumerate(model.message.sequence_batching.state):
        place = ("sequence_batching", 0, "state", number)
        line = model.config.line(*place)
        if not model.config.whole(*place):
            continue
        noun = f"state {state.input_name!r}"
        if not state.input_name or not state.output_name:
            message = f"{noun} needs an input_name and an output_name"
            model.report("sequence-batching", message, "say both", line=line)
        if not state.data_type:
            model.report("sequence-batching", f"{noun} has no data_type", "say data_type: TYPE_…", line=line)
        if not state.dims or any(size == 0 or size < -1 for size in state.dims):
            message = f"{noun} has the dims {list(state.dims)}"
            model.report("sequence-batching", message, "sizes from 1, or -1 for any", line=line)
        for initial in state.initial_state:
            _check_initial(model, state, initial, noun, line)
            file = str(initial.data_file)
            if file and not (model.path / "initial_state" / file).is_file():
                message = f"{noun}: initial_state/{file} is missing"
                model.report("sequence-batching", message, "it belongs into initial_state/", line=line)


def _check_initial(model: ModelFolder, state: Any, initial: Any, noun: str, line: int) -> None:
    """Report an initial state that Triton refuses to start the model with."""
    if not initial.name:
        model.report("sequence-batching", f"{noun}: its initial_state has no name", "say name", line=line)
    if initial.data_type != state.data_type and state.data_type:
        message = f"{noun}: its initial_state has another data_type than the state"
        model.report("sequence-batching", message, "make them the same", line=line)
    if any(size < 1 for size in initial.dims):
        message = f"{noun}: its initial_state has the dims {list(initial.dims)}"
        model.report("sequence-batching", message, "say a size for each, from 1", line=line)
    elif not compatible(list(initial.dims), list(state.dims)):
        message = f"{noun}: its initial_state has the dims {list(initial.dims)}, the state has {list(state.dims)}"
        model.report("sequence-batching", message, "make them the same", line=line)


def _check_environment(model: ModelFolder) -> None:
    """Report an environment's archive that should lie in the model's folder, and does not."""
    if model.backend != "python" or ENVIRONMENT not in model.message.parameters:
        return
    text = str(model.message.parameters[ENVIRONMENT].string_value)
    line = next((at for key, _, at in model.config.lines.entries("parameters") if key == ENVIRONMENT), 0)
    if text.startswith(f"{OWN_FOLDER}/") and not (model.path / text.removeprefix(f"{OWN_FOLDER}/")).exists():
        message = f"{ENVIRONMENT} names {text.removeprefix(f'{OWN_FOLDER}/')!r}, which is not in the model's folder"
        model.report("artefact-missing", message, "put the archive of conda-pack there", line=line)
