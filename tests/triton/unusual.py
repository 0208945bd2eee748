"""Models that ask something unusual of a golden request: every data type, or another model at request time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

VALUES: Mapping[str, list[Any]] = {
    "BOOL": [True, False],
    "UINT8": [0, 255],
    "UINT16": [0, 2**16 - 1],
    "UINT32": [0, 2**32 - 1],
    "UINT64": [0, 2**64 - 1],
    "INT8": [-128, 127],
    "INT16": [-(2**15), 2**15 - 1],
    "INT32": [-(2**31), 2**31 - 1],
    "INT64": [-(2**63), 2**63 - 1],
    "FP16": [-0.1, 65504],
    "FP32": [-0.1, 3e38],
    "FP64": [-0.1, 1e300],
    "BF16": [-0.1, 3e38],
    "STRING": ["", "caf\u00e9"],
}
"""Every data type of Triton, with values from both ends of what it holds."""

ECHO = """\
import triton_python_backend_utils as pb_utils

TYPES = {types}


class TritonPythonModel:
    def execute(self, requests):
        return [pb_utils.InferenceResponse([echo(request, name) for name in TYPES]) for request in requests]


def echo(request, name):
    tensor = pb_utils.get_input_tensor_by_name(request, f"IN_{{name}}")
    if name == "BF16":
        return pb_utils.Tensor.from_dlpack(f"OUT_{{name}}", tensor.to_dlpack())
    return pb_utils.Tensor(f"OUT_{{name}}", tensor.as_numpy())
"""

CALLER = """\
import triton_python_backend_utils as pb_utils

CALLED = {called!r}


class TritonPythonModel:
    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        x = pb_utils.get_input_tensor_by_name(request, "X")
        called = pb_utils.InferenceRequest(model_name=CALLED, requested_output_names=[{output!r}], inputs=[x])
        answer = called.exec()
        if answer.has_error():
            raise pb_utils.TritonModelException(answer.error().message())
        return pb_utils.InferenceResponse([pb_utils.get_output_tensor_by_name(answer, "Y")])
"""


def write_echo(root: Path, name: str, *, types: Iterable[str] = VALUES, sample: bool) -> None:
    """Write a model that gives back an input of each data type, with a sample that expects that, or without one."""
    types = list(types)
    tensors = {
        kind: [f'{{ name: "{kind}_{each}" data_type: TYPE_{each} dims: [ 2 ] }}' for each in types]
        for kind in ("IN", "OUT")
    }
    _write(
        root / name,
        f'name: "{name}"\nbackend: "python"\nmax_batch_size: 8\n'
        f"input [ {', '.join(tensors['IN'])} ]\noutput [ {', '.join(tensors['OUT'])} ]\n",
        ECHO.format(types=types),
    )
    if sample:
        document = {
            "inputs": {f"IN_{each}": VALUES[each] for each in types},
            "outputs": {f"OUT_{each}": VALUES[each] for each in types},
        }
        (root / name / "samples").mkdir()
        (root / name / "samples/ends.json").write_text(json.dumps(document))


def write_caller(root: Path, name: str, called: str, *, output: str = "Y") -> None:
    """Write a model that calls another with its input X, asks it for an output, and gives back its output Y."""
    tensor = "data_type: TYPE_FP32 dims: [ 2 ]"
    config = f'name: "{name}"\nbackend: "python"\nmax_batch_size: 8\ninput [ {{ name: "X" {tensor} }} ]\n'
    _write(root / name, f'{config}output [ {{ name: "Y" {tensor} }} ]\n', CALLER.format(called=called, output=output))


def _write(folder: Path, config: str, code: str) -> None:
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(f"{config}instance_group [ {{ kind: KIND_CPU count: 1 }} ]\n")
    (folder / "1/model.py").write_text(code)
