"""Reads a model's golden requests: `<model>/samples/*.json`. docs/model-repository.md, "Samples", has the format."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tidegate.errors import ModelConfigError
from tidegate.rules.shape import did_you_mean
from tidegate.rules.strict_json import DuplicateNameError, NotFiniteError, refuse_constant, unique_names
from tidegate.triton.checks.files import read_text
from tidegate.triton.checks.folder import ModelFolder, Repository
from tidegate.triton.golden.requests import ABSOLUTE, RELATIVE, GoldenRequest
from tidegate.triton.golden.tensors import Array, bfloats, data_type, fits, to_array
from tidegate.triton.model_config import has_text_ids

FOLDER = "samples"
MAX_SAMPLE_BYTES = 16 * 1024 * 1024
LARGEST_TOLERANCE = 1e300

_KEYS = {"summary", "id", "inputs", "parameters", "outputs", "tolerance"}
_TENSOR_KEYS = {"name", "shape", "datatype", "data", "parameters"}
_RESERVED = {"sequence_id", "sequence_start", "sequence_end", "priority", "timeout", "headers", "binary_data_output"}


class _SampleError(Exception):
    """A sample cannot be sent. `key` is the word in the file that the problem is at."""

    def __init__(self, message: str, hint: str = "", key: str = "") -> None:
        self.hint, self.key = hint, key
        super().__init__(message)


def golden_requests(model: Path) -> tuple[GoldenRequest, ...]:
    """The golden requests of a model, in the order of their files; empty where it has none.

    Args:
        model: the model's folder in its repository.

    Raises:
        ModelConfigError: there is no such folder, or its config or a sample cannot be read; the message has every reason.
    """
    folder = Repository(model.parent).model(model.name)
    if folder is None:
        raise ModelConfigError(f"{model} is no folder of a model")
    requests = read_samples(folder)
    if folder.report.findings:
        raise ModelConfigError("\n".join(map(str, folder.report.findings)))
    return requests


def read_samples(model: ModelFolder) -> tuple[GoldenRequest, ...]:
    """The golden requests of a model; one that cannot be sent is reported and left out."""
    folder = model.path / FOLDER
    if not folder.is_dir():
        return ()
    found = []
    for path in sorted(folder.iterdir()):
        file = f"{FOLDER}/{path.name}"
        if path.suffix != ".json":
            if path.name[0] != ".":
                hint = "a sample is a file that ends in .json"
                model.report("sample", f"{path.name} is no sample", hint, file=file)
            continue
        text = read_text(path, file, model.report, MAX_SAMPLE_BYTES)
        if text is None:
            continue
        try:
            found.append(_request(model, text, file))
        except _SampleError as error:
            model.report("sample", str(error), error.hint, file=file, line=_line(text, error.key))
        except DuplicateNameError as error:
            message = f"{error.name!r} is duplicated in one object"
            model.report("sample", message, "keep one", file=file, line=_line(text, error.name))
        except NotFiniteError as error:
            model.report("sample", f"{error.name} is not a JSON number", "", file=file)
        except json.JSONDecodeError as error:
            model.report("sample", f"this is not JSON: {error.msg}", "", file=file, line=error.lineno)
        except RecursionError:
            model.report("sample", "this is nested too deeply", "", file=file)
        except ValueError:
            # The one mistake in a number that the decoder does not call a mistake of JSON.
            model.report("sample", "an integer has more than 4300 digits", "", file=file)
    return tuple(found)


def _request(model: ModelFolder, text: str, file: str) -> GoldenRequest:
    document = json.loads(text, object_pairs_hook=unique_names, parse_constant=refuse_constant)
    if not isinstance(document, dict):
        raise _SampleError("a sample is one JSON object", 'write {"inputs": {"NAME": …}}; one file for each sample')
    for key in document:
        if key not in _KEYS:
            raise _SampleError(f"unknown key {key!r}", did_you_mean(key, _KEYS, "key"), key)
    if "inputs" not in document:
        raise _SampleError("there are no inputs", 'write "inputs": {"NAME": …}')
    batches = model.message.max_batch_size > 0
    inputs = _arrays(model, document["inputs"], "input", batches)
    for tensor in model.message.input:
        if tensor.name not in inputs and not tensor.optional:
            raise _SampleError(f"input {tensor.name!r} is missing", "give every input that is not optional", "inputs")
    expected = _arrays(model, document.get("outputs", {}), "output", batches)
    absolute, relative = _tolerance(document.get("tolerance", {}))
    request = GoldenRequest(
        model=model.name,
        file=f"{model.name}/{file}",
        inputs=inputs,
        batches=batches,
        parameters=_parameters(document.get("parameters", {})),
        expected=expected,
        absolute=absolute,
        relative=relative,
        is_sequence=model.message.HasField("sequence_batching"),
        has_text_id=has_text_ids(model.message),
        bfloats=bfloats(model.message.input),
    )
    _check_rows(model, request)
    return request


def _arrays(model: ModelFolder, given: Any, kind: str, batches: bool) -> Mapping[str, Array]:
    """The tensors of a sample, by name, with their rows in front where the model batches."""
    declared = {tensor.name: tensor for tensor in getattr(model.message, kind)}
    values: dict[str, Any] = {}
    if isinstance(given, list):
        # As the Open Inference Protocol writes them: flat data beside a shape.
        for tensor in given:
            # Checked first: what is assigned is evaluated before the key.
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
        arrays[name] = _array(name, value, declared[name], kind, batches)
    return arrays


def _array(name: str, value: Any, tensor: Any, kind: str, batches: bool) -> Array:
    dims = list(tensor.dims)
    try:
        array = to_array(value, data_type(tensor))
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


def _tensor_name(tensor: Any, kind: str) -> str:
    if not isinstance(tensor, dict) or not isinstance(tensor.get("name"), str) or "data" not in tensor:
        raise _SampleError(f"an {kind} in a list has name, shape, datatype and data", "", f"{kind}s")
    for key in tensor:
        if key not in _TENSOR_KEYS:
            raise _SampleError(f"unknown key {key!r}", did_you_mean(key, _TENSOR_KEYS, "key"), key)
    return str(tensor["name"])


def _shaped(tensor: Mapping[str, Any]) -> Any:
    """The data of a tensor of the protocol as nested lists in its shape."""
    data, shape = tensor["data"], tensor.get("shape")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        return data
    flat: list[Any] = []
    pending = [data]
    while pending:
        item = pending.pop()
        if isinstance(item, list):
            pending += reversed(item)
        else:
            flat.append(item)
    count = 1
    for size in shape:
        count *= size
    if count != len(flat):
        name = str(tensor["name"])
        raise _SampleError(f"{name!r} has {len(flat)} elements for the shape {shape}", "", name)
    for size in reversed(shape[1:]):
        flat = [flat[start : start + size] for start in range(0, len(flat), size)] if size else []
    return flat


def _check_rows(model: ModelFolder, request: GoldenRequest) -> None:
    if not request.batches:
        return
    counts = {name: len(array) for name, array in (*request.inputs.items(), *request.expected.items())}
    if len(set(counts.values())) > 1:
        words = ", ".join(f"{name!r} {count}" for name, count in counts.items())
        raise _SampleError(f"its tensors have different numbers of rows: {words}", "", "inputs")
    if request.rows > model.message.max_batch_size:
        most = model.message.max_batch_size
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
    """The line where a word stands first, as a key or as a value; 0 where it does not."""
    if not key:
        return 0
    match = re.search(rf'"{re.escape(json.dumps(key)[1:-1])}"|\b{re.escape(key)}\b', text)
    return text.count("\n", 0, match.start()) + 1 if match else 0
