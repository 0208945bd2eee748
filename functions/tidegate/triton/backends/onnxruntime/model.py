"""CPU stand-in for Triton's native `onnxruntime` backend, written as a Python-based backend of that name.

A model that says `backend: "onnxruntime"` runs with it where there is no native one, and unchanged on the native
backend (https://github.com/triton-inference-server/onnxruntime_backend, `src/onnxruntime.cc`, whose checks at load it
makes too). What it lacks it refuses at load or does without: optional and ragged inputs, `reshape`, `batch_input`,
`batch_output`, sequence states, execution accelerators, and every device but the CPU.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import triton_python_backend_utils as pb_utils

Tensors = dict[str, npt.NDArray[Any]]

ELEMENT_TYPES = {
    "tensor(bool)": "TYPE_BOOL", "tensor(double)": "TYPE_FP64", "tensor(float)": "TYPE_FP32",
    "tensor(float16)": "TYPE_FP16", "tensor(int16)": "TYPE_INT16", "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64", "tensor(int8)": "TYPE_INT8", "tensor(string)": "TYPE_STRING",
    "tensor(uint16)": "TYPE_UINT16", "tensor(uint32)": "TYPE_UINT32", "tensor(uint64)": "TYPE_UINT64",
    "tensor(uint8)": "TYPE_UINT8",
}  # fmt: skip


class TritonPythonModel:
    """One ONNX model.

    Parameters read from the configuration: `intra_op_thread_count` and `inter_op_thread_count` (0, the default: as many
    as there are cores). Threads do not spin while they wait, because many models share the cores of one small machine.
    """

    def initialize(self, args: dict[str, str]) -> None:
        """Load the model and check it against its configuration, as the native backend does.

        Raises:
            TritonModelException: the model and its configuration do not fit, or use what this stand-in lacks.
        """
        config = json.loads(args["model_config"])
        file_name = config.get("default_model_filename") or "model.onnx"
        path = Path(args["model_repository"], args["model_version"], file_name)
        if not path.is_file():
            raise _refusal(args["model_name"], f"{args['model_version']}/{file_name} does not exist")
        options = _session_options(args["model_name"], config.get("parameters", {}))
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.can_batch = config["max_batch_size"] > 0
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.outputs = [tensor["name"] for tensor in config["output"]]
        self.text_inputs = {tensor["name"] for tensor in config["input"] if tensor["data_type"] == "TYPE_STRING"}
        _check_model(args["model_name"], config, self.session)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Run the requests: those of equal shapes together, and each by itself where a joint run fails."""
        responses: list[Any] = [None] * len(requests)
        fed: dict[int, Tensors] = {}
        for number, request in enumerate(requests):
            try:
                fed[number] = self._feed(request)
            except ValueError as error:
                responses[number] = _failure(str(error), pb_utils.TritonError.INVALID_ARG)
        for group in self._groups(fed):
            for number, response in self._run_group([(number, requests[number], fed[number]) for number in group]):
                responses[number] = response
        return responses

    def _feed(self, request: Any) -> Tensors:
        feed: Tensors = {}
        for name in self.inputs:
            array = pb_utils.get_input_tensor_by_name(request, name).as_numpy()
            feed[name] = _text(name, array) if name in self.text_inputs else array
        return feed

    def _groups(self, fed: Mapping[int, Tensors]) -> list[list[int]]:
        if not self.can_batch:
            return [[number] for number in fed]
        groups: dict[tuple[tuple[int, ...], ...], list[int]] = defaultdict(list)
        for number, feed in fed.items():
            groups[tuple(array.shape[1:] for array in feed.values())].append(number)
        return list(groups.values())

    def _run_group(self, group: Sequence[tuple[int, Any, Tensors]]) -> list[tuple[int, Any]]:
        wanted = [
            name for name in self.outputs if any(name in request.requested_output_names() for _, request, _ in group)
        ]
        feeds = [feed for _, _, feed in group]
        try:
            results = self._run(wanted, feeds)
        except Exception as error:  # noqa: BLE001 - the ONNX runtime's exceptions share no narrower base
            if len(group) == 1:
                return [(group[0][0], _failure(str(error), pb_utils.TritonError.INTERNAL))]
            return [answer for member in group for answer in self._run_group([member])]
        return [
            (number, _response(request, result)) for (number, request, _), result in zip(group, results, strict=True)
        ]

    def _run(self, wanted: list[str], feeds: Sequence[Tensors]) -> list[Tensors]:
        joint = feeds[0]
        if len(feeds) > 1:
            joint = {name: np.concatenate([feed[name] for feed in feeds]) for name in self.inputs}
        outputs = dict(zip(wanted, self.session.run(wanted, joint), strict=True))
        if not self.can_batch:
            return [outputs]
        ends = np.cumsum([len(feed[self.inputs[0]]) for feed in feeds])
        for name, array in outputs.items():
            if len(array) != ends[-1]:
                raise ValueError(f"output '{name}' has {len(array)} rows for a batch of {ends[-1]}")
        parts = {name: np.split(array, ends[:-1]) for name, array in outputs.items()}
        return [{name: parts[name][number] for name in wanted} for number in range(len(feeds))]


def _session_options(model: str, parameters: Mapping[str, Mapping[str, str]]) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = _thread_count(model, parameters, "intra_op_thread_count")
    options.inter_op_num_threads = _thread_count(model, parameters, "inter_op_thread_count")
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return options


def _thread_count(model: str, parameters: Mapping[str, Mapping[str, str]], name: str) -> int:
    text = parameters.get(name, {}).get("string_value", "0")
    if not text.isdecimal():
        raise _refusal(model, f"parameter '{name}' must be a count of threads, not '{text}'")
    return int(text)


def _check_model(model: str, config: Mapping[str, Any], session: Any) -> None:
    inputs = {node.name: node for node in session.get_inputs()}
    outputs = {node.name: node for node in session.get_outputs()}
    if len(config["input"]) != len(inputs):
        expected, provided = len(config["input"]), len(inputs)
        raise _refusal(model, f"configuration expects {expected} inputs, model provides {provided}: {_names(inputs)}")
    for kind, tensors, nodes in (("input", config["input"], inputs), ("output", config["output"], outputs)):
        for tensor in tensors:
            if tensor["name"] not in nodes:
                problem = f"unexpected inference {kind} '{tensor['name']}', allowed {kind}s are: {_names(nodes)}"
                raise _refusal(model, problem)
            _check_tensor(model, kind, tensor, nodes[tensor["name"]], config["max_batch_size"] > 0)


def _check_tensor(model: str, kind: str, tensor: Mapping[str, Any], node: Any, can_batch: bool) -> None:
    name = tensor["name"]
    if tensor.get("optional"):
        raise _refusal(model, f"optional input '{name}' is not supported by this CPU stand-in")
    if tensor.get("reshape") or tensor.get("allow_ragged_batch"):
        raise _refusal(
            model, f"'reshape' and 'allow_ragged_batch' of {kind} '{name}' are not supported by this CPU stand-in"
        )
    provided = ELEMENT_TYPES.get(node.type, node.type)
    if provided != tensor["data_type"]:
        expected = tensor["data_type"]
        raise _refusal(
            model, f"configuration expects datatype {expected} for {kind} '{name}', model provides {provided}"
        )
    shape = [size if isinstance(size, int) else -1 for size in node.shape]
    if can_batch and shape[:1] != [-1]:
        raise _refusal(model, f"{kind} '{name}': to support batching its first dimension must be free; it has {shape}")
    dims = [-1] * can_batch + [int(size) for size in tensor["dims"]]
    # As in the native backend: an input may be narrower than the model, an output must be what the model says.
    fits = len(shape) == len(dims) and all(
        have == want or (kind == "input" and have == -1) for have, want in zip(shape, dims, strict=True)
    )
    if not fits:
        raise _refusal(model, f"{kind} '{name}': the model has shape {shape}, the configuration says {dims}")


def _text(name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    try:
        decoded = [value.decode() for value in array.reshape(-1)]
    except UnicodeDecodeError as error:
        raise ValueError(f"input '{name}' has text that is not UTF-8") from error
    return np.array(decoded, np.object_).reshape(array.shape)


def _response(request: Any, result: Tensors) -> Any:
    requested = set(request.requested_output_names())
    tensors = [pb_utils.Tensor(name, _plain(array)) for name, array in result.items() if name in requested]
    return pb_utils.InferenceResponse(tensors)


def _plain(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if array.dtype == np.object_:
        encoded = [value.encode() for value in array.reshape(-1)]
        return np.array(encoded, np.object_).reshape(array.shape)
    return np.ascontiguousarray(array)


def _failure(message: str, code: int) -> Any:
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))


def _refusal(model: str, problem: str) -> Exception:
    refusal: Exception = pb_utils.TritonModelException(f"unable to load model '{model}': {problem}")
    return refusal


def _names(nodes: Mapping[str, Any]) -> str:
    return ", ".join(sorted(nodes))
