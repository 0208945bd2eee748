"""Checks answers against a model's config: Triton itself does not check a Python model's outputs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from tidegate.models.config import data_type
from tidegate.models.golden.requests import GoldenRequest, wire_type
from tidegate.models.lint.findings import ModelFinding
from tidegate.models.lint.tensors import fits
from tidegate.models.schema import ModelConfig
from tidegate.oip.arrays import Array, Output, decode
from tidegate.oip.error_texts import reason
from tidegate.oip.framing import HEAD_LENGTH, MalformedAnswerError
from tidegate.ports import HttpResponse

MAX_REASON = 600

UNEXPECTED = "output-unexpected"
"""Kind of a finding: other values than a sample expects."""

_WHATEVER_IS_SENT = re.compile(
    r"decoupled transaction policy|Number of InferenceResponse objects|Expected a list in the execute return|"
    r"got bad yield|NumPy dtype is not supported|cannot be converted to NumPy|'NoneType' object is not callable|"
    r"expected a single response|incomplete string data for inference input|unexpected number of string elements|"
    r"in ensemble .*(?:data-type is|missing required input)|"
    r"Failed for execute the inference request\. Model '.*' is not ready|ModuleNotFoundError: |ImportError: |"
    r"incompatible (?:constructor|function) arguments|unexpected inference (?:input|output) '"
)
"""Reasons of Triton and its Python backend that no input changes."""

_SHAPE = re.compile(r"in ensemble .*unexpected shape for input")


def validate_answer(config: ModelConfig, request: GoldenRequest, response: HttpResponse) -> tuple[ModelFinding, ...]:
    """Check that a response has the declared outputs, with their types and shapes, a row for each row that was sent, finite
    numbers, and the values that the sample expects. It may be from any server that speaks the protocol."""
    if response.status != 200:
        why = reason_of(response)
        kind = "made-up-refused" if request.made_up and may_help(config, why) else "answer-failed"
        if "Stub process" in why or "stub process" in why:
            kind = "model-crashed"
        return (request.finding(kind, f"status {response.status}: {why}"),)
    try:
        outputs = outputs_of(response)
    except MalformedAnswerError as error:
        return (request.finding("answer-malformed", str(error)),)
    return tuple(_check_outputs(config, request, outputs))


def outputs_of(response: HttpResponse) -> dict[str, Output]:
    """Return the outputs of a response by name. Raises `MalformedAnswerError`."""
    return decode(response.body, response.header(HEAD_LENGTH), response.header(b"content-encoding"))


def may_help(config: ModelConfig, reason: str) -> bool:
    """Return whether a model that refused inputs for a reason might accept others."""
    if _SHAPE.search(reason):
        # The sizes between steps vary only if those of the ensemble's inputs do.
        return any(-1 in tensor.dims for tensor in config.input)
    return _WHATEVER_IS_SENT.search(reason) is None


def reason_of(response: HttpResponse) -> str:
    """Return the error text of a response, on one line and shortened."""
    text = " ".join((reason(response.body) or "no reason").split())
    # The end of a traceback says more than its beginning.
    return text if len(text) <= MAX_REASON else f"{text[: MAX_REASON // 2]} … {text[-MAX_REASON // 2 :]}"


def differing(left: Array, right: Array, absolute: float, relative: float) -> npt.NDArray[np.bool_]:
    """Return which elements of two arrays of one shape differ: floats, by more than a tolerance."""
    if np.object_ in (left.dtype.type, right.dtype.type) or (left.dtype.kind in "biu" and right.dtype.kind in "biu"):
        return np.asarray(left.astype(np.object_) != right.astype(np.object_), np.bool_)
    close = np.isclose(left.astype(np.float64), right.astype(np.float64), rtol=relative, atol=absolute, equal_nan=True)
    return np.asarray(~close, np.bool_)


def _check_outputs(config: ModelConfig, request: GoldenRequest, outputs: dict[str, Output]) -> Iterator[ModelFinding]:
    declared = {tensor.name: tensor for tensor in config.output}
    for name, tensor in declared.items():
        if name not in outputs:
            yield request.finding("output-missing", f"output {name!r} did not come")
        else:
            yield from _check_output(request, name, tensor, outputs[name])
    for name in outputs:
        if declared and name not in declared:
            yield request.finding("output-undeclared", f"output {name!r} is not declared")
    for name, expected in request.expected.items():
        if name in outputs:
            yield from validate_values(request, name, expected, outputs[name].array)


def _check_output(request: GoldenRequest, name: str, tensor: Any, output: Output) -> Iterator[ModelFinding]:
    if output.datatype != wire_type(tensor):
        message = f"output {name!r} is {output.datatype}, declared is {data_type(tensor)}"
        yield request.finding("output-data-type", message)
    dims, shape = list(tensor.dims), list(output.array.shape)
    if not request.batches:
        if not fits(shape, dims):
            yield request.finding("output-shape", f"output {name!r} has the shape {shape}, declared is {dims}")
    elif not fits(shape[1:], dims) or not shape:
        message = f"output {name!r} has the shape {shape}, declared is {[request.rows, *dims]}"
        yield request.finding("output-shape", message)
    elif shape[0] != request.rows:
        yield request.finding("output-rows", f"output {name!r} has {shape[0]} rows for {request.rows} of the input")
    if output.array.dtype.kind == "f" and not np.isfinite(output.array).all():
        count = int(np.sum(~np.isfinite(output.array)))
        message = f"output {name!r} has {count} values that are NaN or infinite, of {output.array.size}"
        yield request.finding("output-not-finite", message)


def validate_values(request: GoldenRequest, name: str, expected: Array, array: Array) -> Iterator[ModelFinding]:
    """Check the values of an output against those that a sample expects."""
    if expected.shape != array.shape:
        message = f"output {name!r} has the shape {list(array.shape)}, expected is {list(expected.shape)}"
        yield request.finding(UNEXPECTED, message)
        return
    wrong = differing(array, expected, request.absolute, request.relative)
    if wrong.any():
        first = tuple(map(int, np.argwhere(wrong)[0]))
        message = f"output {name!r} differs from what is expected in {int(wrong.sum())} of {expected.size} values"
        place = f"first at {list(first)}: {array[first]!s:.80}, not {expected[first]!s:.80}"
        yield request.finding(UNEXPECTED, f"{message}, {place}")
