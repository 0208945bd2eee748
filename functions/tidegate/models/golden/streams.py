"""Golden requests to models with decoupled responses, through `generate_stream`: `infer` refuses these models.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_generate.md. The outputs of all responses are
compared together: a sample's `outputs` has the values of every response, one after the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np

from tidegate.errors import ModelConfigError
from tidegate.models.golden.answers import reason_of, validate_values
from tidegate.models.golden.requests import GoldenRequest
from tidegate.models.lint.findings import ModelFinding
from tidegate.models.schema import ModelConfig
from tidegate.oip.arrays import Array
from tidegate.oip.error_texts import error_text
from tidegate.oip.events import EventReader, event_data
from tidegate.oip.generate_json import BESIDE_OUTPUTS, generated_shape
from tidegate.oip.paths import model_path
from tidegate.ports import HttpRequest, HttpResponse


def stream_request(config: ModelConfig, request: GoldenRequest, version: int | None) -> HttpRequest:
    """Return a golden request as one to `generate_stream`.

    Raises:
        ModelConfigError: its inputs cannot be sent so; the message says why.
    """
    dims = {tensor.name: list(tensor.dims) for tensor in config.input}
    document: dict[str, Any] = {}
    for name, array in request.inputs.items():
        shape = [-1, *dims[name]] if request.batches else dims[name]
        if list(array.shape) != generated_shape(shape, array.size):
            raise ModelConfigError(
                f"input {name!r} of the shape {list(array.shape)} is not one that generate_stream can take"
            )
        document[name] = [_json_value(request, value) for value in array.reshape(-1).tolist()]
    if request.parameters:
        document["parameters"] = dict(request.parameters)
    body = json.dumps(document).encode()
    headers = ((b"Content-Type", b"application/json"),)
    return HttpRequest("POST", model_path(request.model, version, "/generate_stream"), headers, body)


def validate_stream(config: ModelConfig, request: GoldenRequest, response: HttpResponse) -> tuple[ModelFinding, ...]:
    """Check that a stream has at least one response and no error, the declared outputs, and the values that the sample expects."""
    body = event_data(response.body)
    if response.status != 200:
        why = reason_of(HttpResponse(response.status, response.headers, body))
        kind = "model-crashed" if "Stub process" in why else "answer-failed"
        return (request.finding(kind, f"status {response.status}: {why}"),)
    reader = EventReader()
    found: dict[str, list[Any]] = {}
    others = BESIDE_OUTPUTS - {tensor.name for tensor in config.output}
    events = reader.feed(response.body)
    for event in events:
        data = event_data(event)
        if (text := error_text(data)) is not None and b'"model_name"' not in data:
            return (request.finding("answer-failed", f"the stream ended with an error: {text}"),)
        try:
            outputs = json.loads(data)
            for name in outputs.keys() - others:
                value = outputs[name]
                found.setdefault(name, []).extend(value if isinstance(value, list) else [value])
        except (ValueError, AttributeError):
            return (request.finding("answer-malformed", "an event of the stream is not a JSON object"),)
    if not events:
        return (request.finding("answer-failed", "the stream has no response"),)
    return tuple(_check(config, request, found))


def _check(config: ModelConfig, request: GoldenRequest, found: dict[str, list[Any]]) -> Iterator[ModelFinding]:
    declared = {tensor.name for tensor in config.output}
    for name in sorted(declared - found.keys()):
        yield request.finding("output-missing", f"output {name!r} did not come")
    for name in sorted(found.keys() - declared):
        yield request.finding("output-undeclared", f"output {name!r} is not declared")
    for name, expected in request.expected.items():
        if name in found:
            yield from validate_values(request, name, expected.reshape(-1), _array(found[name], expected))


def _array(values: list[Any], expected: Array) -> Array:
    """Return the values of all responses as an array that can be compared with the expected one."""
    if expected.dtype == np.object_:
        texts = np.empty(len(values), np.object_)
        texts[:] = [str(value).encode() for value in values]
        return texts
    return np.array(values)


def _json_value(request: GoldenRequest, value: Any) -> Any:
    try:
        return value.decode() if isinstance(value, bytes) else value
    except UnicodeDecodeError as error:
        raise ModelConfigError(f"{request.file}: a value is not text, and generate_stream takes JSON") from error
