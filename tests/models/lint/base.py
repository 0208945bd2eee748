"""A sound model repository, built by a program, for tests to break in one place each.

`reader` (Python) makes features of a text, `scorer` (ONNX) scores them, `picker` (Python) picks; `ranker` is their ensemble.
"""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from typing import Any

READER_CONFIG = """\
name: "reader"
backend: "python"
max_batch_size: 8
input [
  {
    name: "TEXT"
    data_type: TYPE_STRING
    dims: [ 1 ]
  },
  {
    name: "BOOST"
    data_type: TYPE_FP32
    dims: [ 1 ]
    optional: true
  }
]
output [
  {
    name: "FEATURES"
    data_type: TYPE_FP32
    dims: [ 4 ]
  }
]
dynamic_batching {
  preferred_batch_size: [ 4, 8 ]
  max_queue_delay_microseconds: 100
}
instance_group [
  {
    kind: KIND_CPU
    count: 1
  }
]
version_policy: { all {} }
parameters {
  key: "scale"
  value: { string_value: "0.5" }
}
model_warmup [
  {
    name: "one"
    batch_size: 1
    inputs {
      key: "TEXT"
      value: { data_type: TYPE_STRING dims: [ 1 ] zero_data: true }
    }
  }
]
"""

READER = '''\
"""Makes features of a text."""

import json

import numpy as np
import triton_python_backend_utils as pb_utils
from features import WIDTH, features


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.scale = float(config["parameters"]["scale"]["string_value"])

    def execute(self, requests):
        return [self.answer(request) for request in requests]

    def answer(self, request):
        texts = pb_utils.get_input_tensor_by_name(request, "TEXT").as_numpy().reshape(-1)
        boost = pb_utils.get_input_tensor_by_name(request, "BOOST")
        rows = np.stack([features(text.decode()) for text in texts]) * self.scale
        if boost is not None:
            rows = rows + boost.as_numpy()
        tensor = pb_utils.Tensor("FEATURES", rows.astype(np.float32))
        return pb_utils.InferenceResponse([tensor])
'''

FEATURES = '''\
"""Features of one text."""

import numpy as np

WIDTH = 4


def features(text):
    """Counts of characters, by their codes."""
    return np.bincount(np.frombuffer(text.encode(), np.uint8) % WIDTH, minlength=WIDTH).astype(np.float32)
'''

SCORER_CONFIG = """\
name: "scorer"
backend: "onnxruntime"
max_batch_size: 8
input [
  {
    name: "FEATURES"
    data_type: TYPE_FP32
    dims: [ 4 ]
  }
]
output [
  {
    name: "SCORES"
    data_type: TYPE_FP32
    dims: [ 3 ]
  }
]
instance_group [
  {
    kind: KIND_AUTO
    count: 1
  }
]
parameters {
  key: "intra_op_thread_count"
  value: { string_value: "1" }
}
"""

PICKER_CONFIG = """\
name: "picker"
backend: "python"
max_batch_size: 8
input [
  {
    name: "SCORES"
    data_type: TYPE_FP32
    dims: [ -1 ]
  }
]
output [
  {
    name: "BEST"
    data_type: TYPE_INT64
    dims: [ 1 ]
  },
  {
    name: "LABEL"
    data_type: TYPE_STRING
    dims: [ 1 ]
  }
]
instance_group [
  {
    kind: KIND_CPU
    count: 1
  }
]
"""

PICKER = '''\
"""Picks the best score of each row."""

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def execute(self, requests):
        responses = []
        for request in requests:
            scores = pb_utils.get_input_tensor_by_name(request, "SCORES").as_numpy()
            best = scores.argmax(axis=1).reshape(-1, 1)
            labels = np.char.mod("class %d", best).astype(np.bytes_)
            responses.append(
                pb_utils.InferenceResponse(
                    output_tensors=[
                        pb_utils.Tensor("BEST", best.astype(np.int64)),
                        pb_utils.Tensor("LABEL", labels.astype(np.object_)),
                    ]
                )
            )
        return responses
'''

RANKER_CONFIG = """\
name: "ranker"
platform: "ensemble"
max_batch_size: 8
input [
  {
    name: "TEXT"
    data_type: TYPE_STRING
    dims: [ 1 ]
  }
]
output [
  {
    name: "BEST"
    data_type: TYPE_INT64
    dims: [ 1 ]
  },
  {
    name: "SCORES"
    data_type: TYPE_FP32
    dims: [ 3 ]
  }
]
ensemble_scheduling {
  step [
    {
      model_name: "reader"
      model_version: 1
      input_map { key: "TEXT" value: "TEXT" }
      output_map { key: "FEATURES" value: "features" }
    },
    {
      model_name: "scorer"
      model_version: 1
      input_map { key: "FEATURES" value: "features" }
      output_map { key: "SCORES" value: "SCORES" }
    },
    {
      model_name: "picker"
      model_version: 1
      input_map { key: "SCORES" value: "SCORES" }
      output_map { key: "BEST" value: "BEST" }
    }
  ]
}
"""

SAMPLE = """\
{
  "inputs": {"TEXT": ["a word"]},
  "parameters": {"depth": 2},
  "outputs": {"BEST": [1]}
}
"""

FILES = {
    "reader/config.pbtxt": READER_CONFIG,
    "reader/1/model.py": READER,
    "reader/1/features.py": FEATURES,
    "scorer/config.pbtxt": SCORER_CONFIG,
    "picker/config.pbtxt": PICKER_CONFIG,
    "picker/1/model.py": PICKER,
    "ranker/config.pbtxt": RANKER_CONFIG,
    "ranker/1/.keep": "An ensemble has no files of its own.\n",
    "ranker/samples/word.json": SAMPLE,
}


def write_base(root: Path) -> Path:
    """Write the sound repository."""
    for name, text in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    save_onnx(root / "scorer" / "1" / "model.onnx")
    return root


def save_onnx(path: Path, **changes: Any) -> None:
    """Save `onnx_bytes(**changes)`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(onnx_bytes(**changes))


@cache
def onnx_bytes(
    *,
    inputs: tuple[tuple[str, str, tuple[int | str, ...]], ...] = (("FEATURES", "FLOAT", ("N", 4)),),
    output: str = "SCORES",
    opset: int = 17,
    ir_version: int = 9,
    out_type: str = "FLOAT",
    rows: int | str = "N",
    operator: str = "MatMul",
) -> bytes:
    """A small linear model as an ONNX file: `output` = the first input times a matrix [4, 3]."""
    import numpy as np
    from onnx import TensorProto, helper, numpy_helper

    weights = numpy_helper.from_array(np.arange(12, dtype=np.float32).reshape(4, 3), "W")
    nodes = [helper.make_node(operator, [inputs[0][0], "W"], ["product"])]
    nodes += [helper.make_node("Identity", [name], [f"unused_{name}"]) for name, _, _ in inputs[1:]]
    nodes.append(helper.make_node("Cast", ["product"], [output], to=getattr(TensorProto, out_type)))
    graph = helper.make_graph(
        nodes,
        "linear",
        [helper.make_tensor_value_info(name, getattr(TensorProto, kind), list(shape)) for name, kind, shape in inputs],
        [helper.make_tensor_value_info(output, getattr(TensorProto, out_type), [rows, 3])],
        [weights],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)
    serialized: bytes = model.SerializeToString()
    return serialized


def copy_base(source: Path, target: Path) -> Path:
    """A copy of a written repository."""
    return Path(shutil.copytree(source, target, symlinks=True))
