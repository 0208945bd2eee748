"""Models that load and then misbehave, each in one way: Y is X times 2, and not quite."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

CONFIG = """\
name: "{name}"
backend: "python"
max_batch_size: {batch}
input [ {{ name: "X" data_type: TYPE_FP32 dims: [ {dims} ] }} ]
output [ {{ name: "Y" data_type: TYPE_FP32 dims: [ {dims} ] }} ]
instance_group [ {{ kind: KIND_CPU count: 1 }} ]
{more}"""

MODEL = """\
import os
import random
import time

import numpy as np
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    def initialize(self, args):
        {load}

    def execute(self, requests):
        responses = []
        for request in requests:
            x = pb_utils.get_input_tensor_by_name(request, "X").as_numpy()
            {check}
            y = {value}
            responses.append(pb_utils.InferenceResponse({tensors}))
        return responses
"""

TENSORS = '[pb_utils.Tensor("Y", y)]'
SAMPLES = {"a": {"inputs": {"X": [0.25, 1.5]}}, "b": {"inputs": {"X": [1.0, 3.0]}}}

TEXT_IDS = (
    'sequence_batching { control_input [ { name: "ID" control [ { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_STRING } ] '
    "} ] }\n"
)

VALUES = {
    "sound": "x * np.float32(2)",
    "wrong_type": "x.astype(np.float64) * 2",
    "wrong_shape": "np.concatenate([x, x], axis=1)",
    "dropped_rows": "x[:1] * np.float32(2)",
    "not_a_number": "np.where(x > 2, np.float32(np.nan), x)",
    "mean_of_batch": "x - x.mean(axis=0, keepdims=True)",
    "random_answers": "x + np.float32(random.random())",
}
"""The models that only their value makes wrong (or, the first and the last, right)."""


def write_misbehaving(root: Path) -> Path:
    """Write the repository."""
    for name, value in VALUES.items():
        write_model(root, name, value=value)
    write_model(root, "missing_output", tensors="[]")
    write_model(root, "more_outputs", tensors='[pb_utils.Tensor("Y", y), pb_utils.Tensor("Z", y)]')
    write_model(root, "raises", check='raise ValueError("no luck today")')
    write_model(root, "crashes", check="os._exit(3)")
    write_model(root, "hangs_at_load", load="time.sleep(3600)")
    write_model(root, "hangs_in_execute", check="time.sleep(3600)")
    write_model(root, "one_sample", value="x - x.mean(axis=0, keepdims=True)", samples={"a": SAMPLES["a"]})
    write_model(root, "off_by_one", samples={"a": SAMPLES["a"] | {"outputs": {"Y": [1.5, 3.0]}}})
    write_model(root, "unasked", samples={})
    write_model(root, "choosy", samples={}, check='assert x.min() > 5, "X must be above 5"')
    write_model(
        root,
        "choosy_about_variations",
        check="assert x[0, 0] == x[:, 0].min() == x[:, 0].max()",
        samples={"a": SAMPLES["a"]},
    )
    write_model(root, "alone", batch=0)
    write_model(root, "pads", dims="-1", samples={"a": {"inputs": {"X": [1.0, 2.0]}}, "b": {"inputs": {"X": [4.0]}}},
                value="np.pad(x * np.float32(2), ((0, 0), (0, len(x) - 1)))")  # fmt: skip
    write_model(root, "in_sequences", more="sequence_batching { direct {} }\n")
    write_model(root, "sound_step", value="x * np.float32(2)", samples={})
    write_model(root, "text_ids", samples={}, more=TEXT_IDS)
    write_model(root, "streams", more="model_transaction_policy { decoupled: true }\n")
    write_model(root, "another_name")
    code = root / "another_name/1/model.py"
    code.write_text(code.read_text().replace("def execute(", "def run(") + "\n    execute = run\n")
    write_chain(root, "chain", "sound_step", "dropped_rows")
    write_chain(root, "sequence_chain", "in_sequences", "sound_step")
    write_chain(root, "widening_chain", "wrong_shape", "sound_step", samples={})
    write_chain(
        root, "grouped_chain", "sound_step", "sound_step", more="instance_group [ { kind: KIND_CPU count: 2 } ]\n"
    )
    return root


def write_chain(
    root: Path, name: str, first: str, second: str, *, more: str = "", samples: Mapping[str, object] = SAMPLES
) -> None:
    """Write an ensemble of two models."""
    (root / name / "1").mkdir(parents=True)
    (root / name / "1/.keep").write_text("An ensemble has no files of its own.\n")
    (root / name / "config.pbtxt").write_text(_chain(name, first, second) + more)
    _write_samples(root / name, samples)


def write_model(
    root: Path,
    name: str,
    *,
    value: str = "x * np.float32(2)",
    tensors: str = TENSORS,
    load: str = "pass",
    check: str = "pass",
    batch: int = 8,
    dims: str = "2",
    more: str = "",
    samples: Mapping[str, object] = SAMPLES,
) -> None:
    """Write one model."""
    folder = root / name
    (folder / "1").mkdir(parents=True)
    (folder / "config.pbtxt").write_text(CONFIG.format(name=name, batch=batch, dims=dims, more=more))
    (folder / "1/model.py").write_text(MODEL.format(load=load, check=check, value=value, tensors=tensors))
    _write_samples(folder, samples)


def _write_samples(folder: Path, samples: Mapping[str, object]) -> None:
    for name, sample in samples.items():
        (folder / "samples").mkdir(exist_ok=True)
        (folder / "samples" / f"{name}.json").write_text(json.dumps(sample))


def _chain(name: str, first: str, second: str) -> str:
    steps = ", ".join(
        f'{{ model_name: "{step}" model_version: 1 input_map {{ key: "X" value: "{source}" }} '
        f'output_map {{ key: "Y" value: "{target}" }} }}'
        for step, source, target in ((first, "X", "between"), (second, "between", "Y"))
    )
    text = CONFIG.format(name=name, batch=8, dims="2", more=f"ensemble_scheduling {{ step [ {steps} ] }}\n")
    group = "instance_group [ { kind: KIND_CPU count: 1 } ]\n"
    return text.replace('backend: "python"', 'platform: "ensemble"').replace(group, "")
