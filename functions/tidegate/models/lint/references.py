"""Checks what a config refers to: warm-up requests, batch inputs and outputs, states, an environment's archive; and the
configs in `configs/`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from tidegate.language.words import did_you_mean
from tidegate.models.config import NO_TYPE, data_type
from tidegate.models.lint.config_file import read_config
from tidegate.models.lint.files import regular_size
from tidegate.models.lint.folder import CheckedFolder, Field, by_name
from tidegate.models.lint.tensors import ANY_SIZE, compatible
from tidegate.oip.datatypes import ELEMENT_BYTES, datatype_of_config

OWN_FOLDER = "$$TRITON_MODEL_DIRECTORY"
ENVIRONMENT = "EXECUTION_ENV_PATH"
WARMUP = "warmup"
VARIANTS = "configs"


def check_references(model: CheckedFolder) -> None:
    # An ensemble must have no warm-up, which is checked elsewhere.
    if not model.is_ensemble and model.config.input:
        for warmup in model.fields("model_warmup"):
            _check_warmup(model, warmup)
    _check_batch_tensors(model)
    for state in model.fields("sequence_batching", "state"):
        if state.whole:
            for problem, hint in _state_problems(model, state.value):
                state.report("sequence-batching", f"state {state.value.input_name!r}{problem}", hint)
    _check_environment(model)
    _check_variants(model)


def _check_warmup(model: CheckedFolder, warmup: Field) -> None:
    value, most = warmup.value, max(1, model.config.max_batch_size)
    noun = f"warm-up {value.name!r}" if value.name else f"warm-up number {int(warmup.place[1]) + 1}"
    if value.batch_size == 0 and warmup.whole:
        warmup.report("warmup", f"{noun} has batch_size 0: Triton skips it", "say batch_size: 1")
    elif value.batch_size > most:
        warmup.report("warmup", f"{noun} has batch_size {value.batch_size}", f"at most {most}", "batch_size")
    declared = by_name(model.config.input)
    lines = dict(model.text.lines.entries(*warmup.place, "inputs"))
    for name in value.inputs:
        line = lines.get(name, warmup.line())
        if name in declared:
            _check_warmup_input(model, value.inputs[name], declared[name], f"{noun}: input {name!r}", line)
        elif name not in model.input_names:
            hint = did_you_mean(name, set(declared), "input")
            model.report("warmup", f"{noun} gives {name!r}, which is not an input", hint, line=line)
    for order, (name, tensor) in enumerate(declared.items()):
        if name not in value.inputs and not tensor.optional and warmup.whole and model.text.whole("input", order):
            warmup.report("warmup", f"{noun} leaves out input {name!r}", "give every input")


def _check_warmup_input(model: CheckedFolder, given: Any, declared: Any, noun: str, line: int) -> None:
    dims, wanted = list(given.dims), list(declared.dims)
    right = data_type(declared)
    if data_type(given) != right != NO_TYPE:
        model.report("warmup", f"{noun} has {data_type(given)}, declared is {right}", f"say {right}", line=line)
    if any(size < 1 for size in dims):
        hint = "name a size: there is no free one in a warm-up"
        model.report("warmup", f"{noun} has the dims {dims}", hint, line=line)
    elif not compatible(dims, wanted):
        hint = "dims are those of one row, without the batch" if len(dims) == len(wanted) + 1 else ""
        model.report("warmup", f"{noun} has the dims {dims}, declared are {wanted}", hint, line=line)
    match given.WhichOneof("input_data_type"):
        case None:
            model.report("warmup", f"{noun} has no data", "say zero_data: true, or random_data: true", line=line)
        case "input_data_file":
            file = f"{WARMUP}/{given.input_data_file}"
            size = regular_size(model.path / file)
            needed = ELEMENT_BYTES.get(datatype_of_config(data_type(given)), 0) * math.prod(dims)
            if size is None:
                model.report("warmup", f"{noun}: {file} is missing", f"it belongs into {WARMUP}/", line=line)
            elif size < needed:
                model.report("warmup", f"{noun}: {file} has {size} bytes", f"it needs {needed}", line=line)
        case _:
            pass


def _check_batch_tensors(model: CheckedFolder) -> None:
    declared = {kind: {each.name for each in getattr(model.config, kind)} for kind in ("input", "output")}
    for field in ("batch_input", "batch_output"):
        for each in model.fields(field):
            named = [("input", name) for name in each.value.source_input]
            if field == "batch_output":
                named += [("output", name) for name in each.value.target_name]
            for kind, name in named:
                if name not in declared[kind]:
                    hint = did_you_mean(name, declared[kind], kind)
                    each.report("tensor-option", f"{field}: there is no {kind} {name!r}", hint)


def _state_problems(model: CheckedFolder, state: Any) -> Iterator[tuple[str, str]]:
    """Yield what Triton refuses, each with a hint."""
    dims = list(state.dims)
    if not state.input_name or not state.output_name:
        yield " needs an input_name and an output_name", "say both"
    if not state.data_type:
        yield " has no data_type", "say data_type: TYPE_…"
    if not dims or any(size == 0 or size < ANY_SIZE for size in dims):
        yield f" has the dims {dims}", "sizes from 1, or -1 for any"
    for initial in state.initial_state:
        if not initial.name:
            yield ": its initial_state has no name", "say name"
        if initial.data_type != state.data_type and state.data_type:
            yield ": its initial_state has another data_type than the state", "make them the same"
        if any(size < 1 for size in initial.dims):
            yield f": its initial_state has the dims {list(initial.dims)}", "say a size for each, from 1"
        elif not compatible(initial.dims, dims):
            problem = f": its initial_state has the dims {list(initial.dims)}, the state has {dims}"
            yield problem, "make them the same"
        if initial.data_file and not (model.path / "initial_state" / initial.data_file).is_file():
            yield f": initial_state/{initial.data_file} is missing", "it belongs into initial_state/"


def _check_environment(model: CheckedFolder) -> None:
    """Report a missing archive of a Python environment, if it should be in the model's folder."""
    if model.backend != "python" or ENVIRONMENT not in model.config.parameters:
        return
    folder, _, name = str(model.config.parameters[ENVIRONMENT].string_value).partition("/")
    if folder == OWN_FOLDER and not (model.path / name).exists():
        line = next((at for key, at in model.text.lines.entries("parameters") if key == ENVIRONMENT), 0)
        message = f"{ENVIRONMENT} names {name!r}, which is not in the model's folder"
        model.report("artefact-missing", message, "put the archive of conda-pack there", line=line)


def _check_variants(model: CheckedFolder) -> None:
    """Check that each parses, and agrees with `config.pbtxt` about the model."""
    for path in sorted((model.path / VARIANTS).glob("*.pbtxt")):
        file = f"{VARIANTS}/{path.name}"
        variant = read_config(path, file, model.found)
        if not variant.whole() or not model.text.present or not model.text.whole():
            continue
        if variant.message.name not in ("", model.name):
            message = f"name is {variant.message.name!r}, but the folder is {model.name!r}"
            model.report("config-variant", message, "make them the same", file=file, line=variant.line("name"))
        for kind in ("input", "output"):
            declared = [(each.name, each.data_type, list(each.dims)) for each in getattr(model.config, kind)]
            others = [(each.name, each.data_type, list(each.dims)) for each in getattr(variant.message, kind)]
            if others and sorted(declared) != sorted(others):
                message = f"its {kind}s are not those of config.pbtxt"
                model.report("config-variant", message, "make them the same", file=file, line=variant.line(kind))
