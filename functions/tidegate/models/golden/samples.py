"""Reads a model's golden requests: `<model>/samples/*.json`. docs/model-repository.md, "Samples", has the format."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from tidegate.language.words import did_you_mean
from tidegate.model_layout import SAMPLES
from tidegate.models.config import data_type
from tidegate.models.folder import ModelFolder
from tidegate.models.golden.requests import ABSOLUTE, RELATIVE, GoldenRequest, bfloats, in_sequence
from tidegate.models.lint.files import read_text
from tidegate.models.lint.findings import Report
from tidegate.models.lint.folder import CheckedFolder
from tidegate.models.lint.tensors import fits
from tidegate.oip.arrays import NUMPY_TYPES, Array, rounded_to_bfloat16
from tidegate.oip.datatypes import FLOATS, datatype_of_config
from tidegate.oip.values import flattened
from tidegate.strict_json import DuplicateNameError, NotFiniteError, refuse_constant, unique_names

MAX_SAMPLE_BYTES = 16 * 1024 * 1024
LARGEST_TOLERANCE = 1e300

_KEYS = {"summary", "id", "inputs", "parameters", "outputs", "tolerance"}
_TENSOR_KEYS = {"name", "shape", "datatype", "data", "parameters"}
_WORDS = {bool: "true or false", int: "an integer", float: "a number", str: "text"}
_RESERVED = {"sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "headers", "binary_data_output"}


class _SampleError(Exception):
    """A sample that cannot be sent. `key` is the word in the file that the problem is at."""

    def __init__(self, message: str, hint: str = "", key: str = "") -> None:
        self.hint, self.key = hint, key
        super().__init__(message)


def read_samples(model: CheckedFolder, *, streams: bool) -> tuple[GoldenRequest, ...]:
    """Return the golden requests of a model; one that cannot be sent is reported and left out.

    `streams` says whether its responses are decoupled: `tidegate.models.config.is_decoupled`.
    """
    folder = model.path / SAMPLES
    texts: dict[str, str] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        file = f"{SAMPLES}/{path.name}"
        if path.suffix == ".json":
            text = read_text(path, file, model.found, MAX_SAMPLE_BYTES)
            texts |= {} if text is None else {file: text}
        elif path.name[0] != ".":
            model.report("sample", f"{path.name} is not a sample", "a sample is a file that ends in .json", file=file)
    return parse_samples(model, texts, model.found, streams=streams)


def parse_samples(
    model: ModelFolder, texts: Mapping[str, str], report: Report, *, streams: bool
) -> tuple[GoldenRequest, ...]:
    """Return the golden requests in texts by file, as `read_samples` does."""
    found = []
    for file, text in texts.items():
        try:
            found.append(_request(model, text, file, streams))
        except _SampleError as error:
            report("sample", str(error), error.hint, file=file, line=_line(text, error.key))
        except DuplicateNameError as error:
            message = f"{error.name!r} is duplicated in one object"
            report("sample", message, "keep one", file=file, line=_line(text, error.name))
        except NotFiniteError as error:
            report("sample", f"{error.name} is not a JSON number", file=file)
        except json.JSONDecodeError as error:
            report("sample", f"this is not JSON: {error.msg}", file=file, line=error.lineno)
        except RecursionError:
            report("sample", "this is nested too deeply", file=file)
        except ValueError:
            # The only other error of the decoder.
            report("sample", "an integer has more than 4300 digits", file=file)
    return tuple(found)


def _request(model: ModelFolder, text: str, file: str, streams: bool) -> GoldenRequest:
    document = json.loads(text, object_pairs_hook=unique_names, parse_constant=refuse_constant)
    if not isinstance(document, dict):
        raise _SampleError("a sample is one JSON object", 'write {"inputs": {"NAME": …}}; one file for each sample')
    for key in document:
        if key not in _KEYS:
            raise _SampleError(f"unknown key {key!r}", did_you_mean(key, _KEYS, "key"), key)
    if "inputs" not in document:
        raise _SampleError("there are no inputs", 'write "inputs": {"NAME": …}')
    batches = model.config.max_batch_size > 0
    inputs = _arrays(model, document["inputs"], "input", batches=batches)
    for tensor in model.config.input:
        if tensor.name not in inputs and not tensor.optional:
            raise _SampleError(f"input {tensor.name!r} is missing", "give every input that is not optional", "inputs")
    expected = _arrays(model, document.get("outputs", {}), "output", batches=batches, streams=streams)
    absolute, relative = _tolerance(document.get("tolerance", {}))
    request = GoldenRequest(
        model=model.name,
        file=f"{model.name}/{file}",
        inputs=inputs,
        batches=batches,
        parameters=_parameters(document.get("parameters", {})),
        expected=expected,
        bfloats=bfloats(model.config.input),
        absolute=absolute,
        relative=relative,
    )
    _check_rows(model, request, streams=streams)
    return in_sequence(request, [model.config])


def _arrays(model: ModelFolder, given: Any, kind: str, *, batches: bool, streams: bool = False) -> Mapping[str, Array]:
    declared = {tensor.name: tensor for tensor in getattr(model.config, kind)}
    values: dict[str, Any] = {}
    if isinstance(given, list):
        # As in the Open Inference Protocol: flat data beside a shape.
        for tensor in given:
            name = _tensor_name(tensor, kind)
            values[name] = _shaped(tensor)
    elif isinstance(given, dict):
        values = given
    else:
        raise _SampleError(f"{kind}s are an object of values by name", "", f"{kind}s")
    arrays = {}
    for name, value in values.items():
        if name not in declared:
            raise _SampleError(f"the config has no {kind} {name!r}", did_you_mean(name, set(declared), kind), name)
        dims = [-1] if streams else list(declared[name].dims)
        arrays[name] = _array(name, value, declared[name], dims, kind, batches and not streams)
    return arrays


def _array(name: str, value: Any, tensor: Any, dims: list[int], kind: str, batches: bool) -> Array:
    """Return the values of a tensor. The outputs of a model with decoupled responses are those of all responses together."""
    try:
        array = _converted(value, data_type(tensor))
    except OverflowError as error:
        raise _SampleError(f"{kind} {name!r}: a number does not fit its data type", "", name) from error
    except ValueError as error:
        raise _SampleError(f"{kind} {name!r}: {error}", "", name) from error
    if array.ndim == 0 and all(size in (1, -1) for size in dims):
        array = array.reshape([1] * len(dims))
    row = array.shape[1:] if batches and array.ndim == len(dims) + 1 else array.shape
    if not fits(row, dims):
        hint = "give one row, or several in one more list" if batches else ""
        raise _SampleError(f"{kind} {name!r} has the shape {list(array.shape)}, the config says {dims}", hint, name)
    return array[None] if batches and array.ndim == len(dims) else array


def _converted(value: Any, name: str) -> Array:
    """Return a nested list, or a single value, as an array of a data type of a config.

    Raises:
        ValueError: it is ragged, holds another type, or a value out of range; the message says so and where.
    """
    datatype = datatype_of_config(name)
    if datatype not in NUMPY_TYPES:
        raise ValueError(f"the data type {name} cannot be written in a sample")
    flat, shape = _flatten(value)
    kind = {"BYTES": str, "BOOL": bool}.get(datatype, float if datatype in FLOATS else int)
    target = NUMPY_TYPES[datatype]
    for position, item in enumerate(flat):
        fits_kind = type(item) is kind or (kind is float and type(item) is int)
        if not fits_kind:
            raise ValueError(f"element {position} is {item!r:.40}, where {name} takes {_WORDS[kind]}")
        if kind is int and not np.iinfo(target).min <= item <= np.iinfo(target).max:
            raise ValueError(f"element {position} is {item}, outside the range of {name}")
    if kind is str:
        array = np.empty(len(flat), np.object_)
        array[:] = [item.encode() for item in flat]
        return array.reshape(shape)
    with np.errstate(over="ignore"):
        made: Array = np.array(flat, target)
        made = rounded_to_bfloat16(made) if datatype == "BF16" else made
    if kind is float and not np.isfinite(made).all():
        raise ValueError(f"a number is outside the range of {name}")
    return made.reshape(shape)


def _flatten(value: Any) -> tuple[list[Any], tuple[int, ...]]:
    shape: list[int] = []
    level = [value]
    while level and isinstance(level[0], list):
        size = len(level[0])
        if any(not isinstance(item, list) or len(item) != size for item in level):
            raise ValueError("the lists in it have different lengths")
        shape.append(size)
        level = [element for item in level for element in item]
    if any(isinstance(item, list) for item in level):
        raise ValueError("the lists in it have different depths")
    return level, tuple(shape)


def _tensor_name(tensor: Any, kind: str) -> str:
    if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str) or "data" not in tensor:
        raise _SampleError(f"an {kind} in a list has name, shape, datatype and data", "", f"{kind}s")
    for key in tensor:
        if key not in _TENSOR_KEYS:
            raise _SampleError(f"unknown key {key!r}", did_you_mean(key, _TENSOR_KEYS, "key"), key)
    return str(tensor["name"])


def _shaped(tensor: Mapping[str, Any]) -> Any:
    """Return the data of a tensor of the protocol as nested lists in its shape."""
    data, shape = tensor["data"], tensor.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        return data
    flat = flattened(data)
    if math.prod(shape) != len(flat):
        name = str(tensor["name"])
        raise _SampleError(f"{name!r} has {len(flat)} elements for the shape {shape}", "", name)
    for size in reversed(shape[1:]):
        flat = [flat[start : start + size] for start in range(0, len(flat), size)] if size else []
    return flat


def _check_rows(model: ModelFolder, request: GoldenRequest, *, streams: bool) -> None:
    if not request.batches:
        return
    expected = {} if streams else request.expected
    counts = {name: len(array) for name, array in (*request.inputs.items(), *expected.items())}
    if len(set(counts.values())) > 1:
        words = ", ".join(f"{name!r} {count}" for name, count in counts.items())
        raise _SampleError(f"its tensors have different numbers of rows: {words}", "", "inputs")
    if request.rows > model.config.max_batch_size:
        most = model.config.max_batch_size
        raise _SampleError(f"{request.rows} rows, where max_batch_size is {most}", "split it", "inputs")


def _parameters(given: Any) -> Mapping[str, Any]:
    if not isinstance(given, dict):
        raise _SampleError("parameters are an object", "", "parameters")
    for name, value in given.items():
        if not isinstance(value, str | int | float | bool):
            raise _SampleError(f"parameter {name!r} is neither text, a number nor a boolean", "", name)
        if name in _RESERVED or name.startswith("triton_"):
            raise _SampleError(f"parameter {name!r} belongs to the protocol", "remove it", name)
    return given


def _tolerance(given: Any) -> tuple[float, float]:
    values = {"absolute": ABSOLUTE, "relative": RELATIVE}
    if not isinstance(given, dict) or not given.keys() <= values.keys():
        raise _SampleError("a tolerance has absolute and relative", 'write {"absolute": 1e-5}', "tolerance")
    for name, value in given.items():
        if type(value) not in (int, float) or not 0 <= value <= LARGEST_TOLERANCE:
            raise _SampleError(f"{name} must be a number from 0 to {LARGEST_TOLERANCE:g}", "", name)
        values[name] = float(value)
    return values["absolute"], values["relative"]


def _line(text: str, key: str) -> int:
    """Return the first line with a word, as a key or as a value; 0 if none has it."""
    if not key:
        return 0
    match = re.search(rf'"{re.escape(json.dumps(key)[1:-1])}"|\b{re.escape(key)}\b', text)
    return text.count("\n", 0, match.start()) + 1 if match else 0
