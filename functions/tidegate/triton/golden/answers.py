"""Whether an answer is what a model's config declares: Triton itself does not check a Python model's outputs."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from tritonclient.grpc.model_config_pb2 import ModelConfig

from tidegate.ports import HttpResponse
from tidegate.triton.checks.findings import ModelFinding
from tidegate.triton.golden.requests import GoldenRequest
from tidegate.triton.golden.tensors import Array, data_type, fits, wire_type
from tidegate.triton.golden.wire import MAX_REASON, MalformedAnswerError, Output, decode

DECOUPLED = "doesn't support models with decoupled transaction policy"
"""What Triton answers to `infer` where a model, or a step, has decoupled responses."""

UNEXPECTED = "output-unexpected"
"""The kind of a finding of other values than a sample expects."""

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
    """Check the response to a golden request: outputs are there, and have declared types and shapes, a row for each row
    that was sent, finite numbers, and the values that the sample expects.

    Args:
        config: the model's config.
        request: what was sent.
        response: what came back, from Triton or from anything that speaks the protocol.
    """
    if response.status != 200:
        reason = reason_of(response)
        kind = "made-up-refused" if request.made_up and may_help(config, reason) else "answer-failed"
        if "Stub process" in reason or "stub process" in reason:
            kind = "model-crashed"
        return (_finding(request, kind, f"status {response.status}: {reason}"),)
    try:
        outputs = decode(response)
    except MalformedAnswerError as error:
        return (_finding(request, "answer-malformed", str(error)),)
    return tuple(_check_outputs(config, request, outputs))


def may_help(config: ModelConfig, reason: str) -> bool:
    """Whether other inputs could be answered by a model that refused some for a reason."""
    if _SHAPE.search(reason):
        # What steps hand on can be of another size only where the ensemble takes another.
        return any(-1 in tensor.dims for tensor in config.input)
    return _WHATEVER_IS_SENT.search(reason) is None


def reason_of(response: HttpResponse) -> str:
    """The reason that an error response gives."""
    try:
        text = str(json.loads(response.body)["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        text = response.body.decode(errors="replace") or "no reason"
    text = " ".join(text.split())
    # The end of a traceback says more than its beginning.
    return text if len(text) <= MAX_REASON else f"{text[: MAX_REASON // 2]} … {text[-MAX_REASON // 2 :]}"


def differing(left: Array, right: Array, absolute: float, relative: float) -> npt.NDArray[np.bool_]:
    """Which elements of two arrays of one shape differ; numbers that are not whole, by more than a tolerance."""
    if np.object_ in (left.dtype.type, right.dtype.type) or (left.dtype.kind in "biu" and right.dtype.kind in "biu"):
        return np.asarray(left.astype(np.object_) != right.astype(np.object_), np.bool_)
    close = np.isclose(left.astype(np.float64), right.astype(np.float64), rtol=relative, atol=absolute, equal_nan=True)
    return np.asarray(~close, np.bool_)


def _check_outputs(config: ModelConfig, request: GoldenRequest, outputs: dict[str, Output]) -> Iterator[ModelFinding]:
    declared = {tensor.name: tensor for tensor in config.output}
    for name, tensor in declared.items():
        if name not in outputs:
            yield _finding(request, "output-missing", f"output {name!r} did not come")
        else:
            yield from _check_output(request, name, tensor, outputs[name])
    for name in outputs:
        if declared and name not in declared:
            yield _finding(request, "output-undeclared", f"output {name!r} is not declared")
    for name, expected in request.expected.items():
        if name in outputs:
            yield from _check_expected(request, name, expected, outputs[name].array)


def _check_output(request: GoldenRequest, name: str, tensor: Any, output: Output) -> Iterator[ModelFinding]:
    if output.datatype != wire_type(tensor):
        message = f"output {name!r} is {output.datatype}, declared is {data_type(tensor)}"
        yield _finding(request, "output-data-type", message)
    dims, shape = list(tensor.dims), list(output.array.shape)
    if not request.batches:
        if not fits(shape, dims):
            yield _finding(request, "output-shape", f"output {name!r} has the shape {shape}, declared is {dims}")
    elif not fits(shape[1:], dims) or not shape:
        message = f"output {name!r} has the shape {shape}, declared is {[request.rows, *dims]}"
        yield _finding(request, "output-shape", message)
    elif shape[0] != request.rows:
        message = f"output {name!r} has {shape[0]} rows for {request.rows} of the input"
        yield _finding(request, "output-rows", message)
    if output.array.dtype.kind == "f" and not np.isfinite(output.array).all():
        count = int(np.sum(~np.isfinite(output.array)))
        message = f"output {name!r} has {count} values that are NaN or infinite, of {output.array.size}"
        yield _finding(request, "output-not-finite", message)


def _check_expected(request: GoldenRequest, name: str, expected: Array, array: Array) -> Iterator[ModelFinding]:
    if expected.shape != array.shape:
        message = f"output {name!r} has the shape {list(array.shape)}, expected is {list(expected.shape)}"
        yield _finding(request, UNEXPECTED, message)
        return
    wrong = differing(array, expected, request.absolute, request.relative)
    if wrong.any():
        first = tuple(map(int, np.argwhere(wrong)[0]))
        message = f"output {name!r} differs from what is expected in {int(wrong.sum())} of {expected.size} values"
        place = f"first at {list(first)}: {array[first]!s:.80}, not {expected[first]!s:.80}"
        yield _finding(request, UNEXPECTED, f"{message}, {place}")


def _finding(request: GoldenRequest, kind: str, message: str) -> ModelFinding:
    return ModelFinding(request.file, 0, kind, message, "", request.model)
