"""Every kind of mistake, one at a time in a sound repository: the finding names its kind, file and line, and is alone."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tidegate.models.lint.checker import check_models
from tidegate.models.lint.findings import ModelFinding
from tidegate.models.lint.kinds import KINDS

from tests.models.lint.base import copy_base, onnx_bytes, save_onnx, write_base

MODELS = ("ranker", "reader", "scorer", "picker")

Change = Callable[[Path], object]


@dataclass(frozen=True, slots=True)
class Case:
    """A mistake: what it does to the repository, and the finding that must come.

    `at` is a text that stands on the finding's line (its first occurrence in the file as changed), or the line's number,
    or None where the file as a whole is meant. `also` are kinds that follow from the mistake.
    """

    name: str
    change: Change
    kind: str
    file: str
    at: str | int | None = None
    also: tuple[str, ...] = ()


def edit(file: str, old: str, new: str) -> Change:
    """Replace a text that stands in a file."""

    def change(root: Path) -> None:
        text = (root / file).read_text()
        assert old in text
        (root / file).write_text(text.replace(old, new, 1))

    return change


def write(file: str, content: str | bytes = "x\n") -> Change:
    """Write a file."""

    def change(root: Path) -> None:
        path = root / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def append(file: str, text: str) -> Change:
    """Add to the end of a file."""
    return lambda root: (root / file).write_text((root / file).read_text() + text)


def remove(file: str) -> Change:
    """Remove a file or a folder."""
    return lambda root: shutil.rmtree(root / file) if (root / file).is_dir() else (root / file).unlink()


def rename(file: str, name: str) -> Change:
    """Rename a file or a folder."""
    return lambda root: (root / file).rename((root / file).with_name(name))


def both(*changes: Change) -> Change:
    """Several changes."""
    return lambda root: [change(root) for change in changes]


def onnx(**changes: object) -> Change:
    """Save another ONNX model."""
    return lambda root: save_onnx(root / "scorer/1/model.onnx", **changes)


def external_onnx(location: str, data: bytes | None) -> Change:
    """Save an ONNX model whose matrix is external data."""

    def change(root: Path) -> None:
        import onnx

        model = onnx.load_from_string(onnx_bytes())
        tensor = model.graph.initializer[0]
        size = len(tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "0"), ("length", str(size))):
            entry = tensor.external_data.add()
            entry.key, entry.value = key, value
        (root / "scorer/1/model.onnx").write_bytes(model.SerializeToString())
        if data is not None:
            (root / "scorer/1" / location).write_bytes(data)

    return change


def nested_ensembles(root: Path) -> None:
    text = (root / "ranker/config.pbtxt").read_text()
    (root / "outer/1").mkdir(parents=True)
    (root / "outer/1/.keep").write_text("x")
    (root / "outer/config.pbtxt").write_text(
        text.replace('name: "ranker"', 'name: "outer"', 1).replace('"scorer"', '"ranker"')
    )


READER, READER_PY = "reader/config.pbtxt", "reader/1/model.py"
SCORER, PICKER, RANKER = "scorer/config.pbtxt", "picker/config.pbtxt", "ranker/config.pbtxt"
PICKER_PY = "picker/1/model.py"
ONE_STEP = '      output_map { key: "FEATURES" value: "features" }\n'
EXECUTE = "        return [self.answer(request) for request in requests]\n"
GROUP = "instance_group [\n  {\n    kind: KIND_CPU\n    count: 1\n  }\n]\n"

CONFIG = [
    Case("a byte order mark", edit(READER, "name:", "\ufeffname:"), "config-syntax", READER, 1),
    Case("a blank that nobody sees", edit(READER, "max_batch_size", "\u200bmax_batch_size"), "config-syntax", READER, 3),
    Case("an unknown field", edit(READER, "max_batch_size", "max_batch_seize"), "config-unknown-field", READER, 3),
    Case("a field in the wrong place", edit(READER, "dims: [ 4 ]", "dims: [ 4 ] count: 1"), "config-unknown-field", READER, "count: 1"),
    Case("a data type of another tool", edit(READER, "TYPE_FP32\n    dims: [ 4 ]", "TYPE_FLOAT32\n    dims: [ 4 ]"), "config-value", READER, "TYPE_FLOAT32"),
    Case("bytes for a string", edit(READER, "TYPE_STRING", "TYPE_BYTES"), "config-value", READER, "TYPE_BYTES"),
    Case("an unknown kind of instance", edit(SCORER, "KIND_AUTO", "KIND_TPU"), "config-value", SCORER, "KIND_TPU"),
    Case("a number that is no kind", edit(SCORER, "KIND_AUTO", "77"), "config-value", SCORER, "kind: 77"),
    Case("text for a number", edit(READER, "max_batch_size: 8", 'max_batch_size: "8"'), "config-value", READER, 3),
    Case("a number that is too large", edit(READER, "max_batch_size: 8", "max_batch_size: 8000000000"), "config-value", READER, 3),
    Case("yes for true", edit(READER, "optional: true", "optional: yes"), "config-value", READER, "yes"),
    Case("a field twice", append(READER, 'backend: "python"\n'), "config-duplicate", READER, 49),
    Case("two schedulers", append(READER, "sequence_batching {}\n"), "config-duplicate", READER, "sequence_batching"),
    Case("a parameter twice", append(READER, 'parameters { key: "scale" value { string_value: "2" } }\n'), "config-duplicate", READER, 'string_value: "2"'),
    Case("an input mapped twice", edit(RANKER, ONE_STEP, '      input_map { key: "TEXT" value: "other" }\n' + ONE_STEP), "config-duplicate", RANKER, '"other"', ("ensemble-unused", "ensemble-unwritten")),
    Case("a missing brace", edit(READER, "  }\n]\noutput", "]\noutput"), "config-syntax", READER, 15),
    Case("a missing quote", edit(READER, 'backend: "python"', "backend: python\""), "config-value", READER, 2),
    Case("a comma too many", edit(READER, "[ 4, 8 ]", "[ 4, 8, ]"), "config-value", READER, "[ 4, 8, ]"),
    Case("JSON", write(READER, '{"name": "reader"}\n'), "config-syntax", READER, 1),
    Case("a binary config", write(READER, b"\x08\x96\x01\xff\xfe"), "unreadable", READER, 1),
    Case("an enormous config", write(READER, "# " + "x" * 5_000_000), "unreadable", READER),
    Case("deep nesting", write(READER, "input { " * 5000 + "} " * 5000), "config-unknown-field", READER, 1),
    Case("a config that is a folder", both(remove(READER), write("reader/config.pbtxt/x")), "unreadable", READER),
    Case("a config that is a dead link", both(remove(READER), lambda root: (root / READER).symlink_to("nowhere")), "unreadable", READER),
    Case("a misspelt config", rename(READER, "config.pbtext"), "config-missing", "reader"),
    Case("no config of a Python model", remove(READER), "config-missing", "reader"),
    Case("a field of a later Triton", edit(RANKER, "ensemble_scheduling {", "ensemble_scheduling {\n  max_inflight_requests: 4"), "config-new-field", RANKER, "max_inflight"),
]  # fmt: skip

LAYOUT = [
    Case("a name that is another's", edit(READER, 'name: "reader"', 'name: "raeder"'), "name-mismatch", READER, 1),
    Case("no version", remove("reader/1"), "version-missing", "reader"),
    Case("a version with a leading zero", rename("reader/1", "01"), "version-name", "reader/01", None, ("step-missing",)),
    Case("a version v1", rename("reader/1", "v1"), "version-name", "reader/v1"),
    Case("version 0", rename("reader/1", "0"), "version-name", "reader/0"),
    Case("a negative version", rename("reader/1", "-1"), "version-name", "reader/-1"),
    Case("a version that is almost a number", write("reader/2_old/model.py", "x = 1\n"), "version-name", "reader/2_old"),
    Case("a version beyond 64 bits", write("reader/99999999999999999999/x"), "version-name", "reader/99999999999999999999"),
    Case("a version that is a file", both(remove("picker/1"), write("picker/1")), "version-name", "picker/1"),
    Case("an empty version", lambda root: (root / "reader/2").mkdir(), "version-empty", "reader/2"),
    Case("an empty version of an ensemble", remove("ranker/1/.keep"), "version-empty", "ranker/1"),
    Case("a folder that is no model", both(remove("picker"), lambda root: (root / "picker").mkdir()), "model-empty", "picker", None, ("ensemble-map",)),
    Case("two versions of an ensemble", write("ranker/2/.keep"), "ensemble-versions", "ranker"),
    Case("a policy for a missing version", edit(READER, "all {}", "specific { versions: [ 1, 3 ] }"), "version-policy", READER, "versions: [ 1, 3 ]"),
    Case("a policy for no version", edit(READER, "all {}", "latest { num_versions: 0 }"), "version-policy", READER, "num_versions: 0"),
    Case("a policy of an empty list", edit(READER, "all {}", "specific { }"), "version-policy", READER, "specific"),
    Case("no model.py", remove(READER_PY), "artefact-missing", "reader/1"),
    Case("a model.py beside its version", lambda root: (root / READER_PY).rename(root / "reader/model.py"), "artefact-missing", "reader/1"),
    Case("a model in a folder too many", lambda root: [(root / "reader").rename(root / "inner"), (root / "reader").mkdir(), (root / "inner").rename(root / "reader/reader")], "model-empty", "reader", also=("step-missing", "ensemble-map", "ensemble-data-type", "version-missing")),
    Case("a misspelt model.py", rename(PICKER_PY, "Model.py"), "artefact-missing", "picker/1"),
    Case("the file of another backend", edit(PICKER, 'backend: "python"', 'backend: "onnxruntime"'), "artefact-missing", "picker/1"),
    Case("a default file that is not there", append(PICKER, 'default_model_filename: "pick.py"\n'), "artefact-missing", "picker/1"),
    Case("a default file outside", append(PICKER, 'default_model_filename: "../../model.py"\n'), "artefact-missing", PICKER, "../../"),
    Case("a variant for GPUs of another model", write("scorer/configs/gpu.pbtxt", 'name: "scores"\n'), "config-variant", "scorer/configs/gpu.pbtxt", 1),
    Case("a variant with other tensors", write("scorer/configs/gpu.pbtxt", 'input [ { name: "F" data_type: TYPE_FP32 dims: [ 4 ] } ]\n'), "config-variant", "scorer/configs/gpu.pbtxt", 1),
    Case("a variant that does not parse", write("scorer/configs/gpu.pbtxt", "\n\nbackends: 1\n"), "config-unknown-field", "scorer/configs/gpu.pbtxt", 3),
]  # fmt: skip

BACKEND = [
    Case("no backend", both(edit(READER, 'backend: "python"\n', ""), rename(READER_PY, "main.py")), "backend-missing", READER, 1),
    Case("an unknown backend", edit(READER, '"python"', '"pyhton"'), "backend-unknown", READER, 2),
    Case("a backend that nobody knows of", both(edit(READER, '"python"', '"ctranslate2"')), "backend-unverified", READER, 2),
    Case("onnx for onnxruntime", edit(SCORER, '"onnxruntime"', '"onnx"'), "backend-unknown", SCORER, 2),
    Case("a backend as platform", edit(READER, 'backend: "python"', 'platform: "python"'), "backend-unknown", READER, 2),
    Case("platform against backend", append(SCORER, 'platform: "tensorrt_plan"\n'), "backend-mismatch", SCORER, "tensorrt_plan"),
    Case("an ensemble with a backend", append(RANKER, 'backend: "python"\n'), "backend-mismatch", RANKER, 'backend: "python"'),
    Case("an ensemble without a platform", edit(RANKER, 'platform: "ensemble"\n', ""), "backend-mismatch", RANKER, 1),
    Case("an ensemble without scheduling", lambda root: (root / RANKER).write_text((root / RANKER).read_text().partition("ensemble_scheduling")[0]), "ensemble-step", RANKER, 2),
    Case("threads that are no number", edit(SCORER, 'string_value: "1"', 'string_value: "one"'), "parameter", SCORER, "parameters {"),
]  # fmt: skip

TENSORS = [
    Case("a negative batch size", edit(PICKER, "max_batch_size: 8", "max_batch_size: -1"), "batch-size", PICKER, 3, ("ensemble-batch",)),
    Case("no inputs", edit(PICKER, (PICKER_INPUT := 'input [\n  {\n    name: "SCORES"\n    data_type: TYPE_FP32\n    dims: [ -1 ]\n  }\n]\n'), ""), "tensors-missing", PICKER, 1),
    Case("an input twice", edit(READER, '"BOOST"', '"TEXT"'), "tensor-name", READER, 11, ("code-tensor",)),
    Case("an output twice", edit(PICKER, '"LABEL"', '"BEST"'), "tensor-name", PICKER, 18, ("code-undeclared",)),
    Case("an input without a name", edit(READER, '    name: "BOOST"\n', ""), "tensor-name", READER, 10, ("code-tensor",)),
    Case("an input without a type", edit(READER, "    data_type: TYPE_STRING\n", ""), "tensor-data-type", READER, 5, ("warmup",)),
    Case("an input without dims", edit(READER, "    dims: [ 1 ]\n", ""), "tensor-dims", READER, 5, ("warmup",)),
    Case("a dimension of 0", edit(PICKER, "dims: [ -1 ]", "dims: [ 0 ]"), "tensor-dims", PICKER, "dims: [ 0 ]"),
    Case("a dimension of -2", edit(PICKER, "dims: [ -1 ]", "dims: [ 3, -2 ]"), "tensor-dims", PICKER, "-2"),
    Case("a reshape of other size", edit(PICKER, "dims: [ -1 ]", "dims: [ 3 ] reshape { shape: [ 2 ] }"), "tensor-reshape", PICKER, "reshape"),
    Case("a reshape of free sizes", edit(PICKER, "dims: [ -1 ]", "dims: [ -1 ] reshape { shape: [ 2, -1 ] }"), "tensor-reshape", PICKER, "reshape"),
    Case("a reshape to nothing without batches", both(edit(PICKER, "max_batch_size: 8", "max_batch_size: 0"), edit(PICKER, "dims: [ -1 ]", "dims: [ -1, 1 ]"), edit(PICKER, "TYPE_INT64\n    dims: [ 1 ]", "TYPE_INT64\n    dims: [ -1, 1 ] reshape { }")), "tensor-reshape", PICKER, "reshape", ("ensemble-shape",)),
    Case("a shape tensor in Python", edit(PICKER, "dims: [ -1 ]", "dims: [ -1 ] is_shape_tensor: true"), "tensor-option", PICKER, "is_shape_tensor"),
    Case("an image of one dimension", edit(PICKER, "dims: [ -1 ]", "dims: [ -1 ] format: FORMAT_NCHW"), "tensor-option", PICKER, "FORMAT_NCHW"),
    Case("an optional input of a batching ONNX model", edit(SCORER, "dims: [ 4 ]", "dims: [ 4 ] optional: true"), "tensor-option", SCORER, "optional", ("onnx-local",)),
    Case("labels that are not there", edit(PICKER, '"BEST"\n', '"BEST"\n    label_filename: "labels.txt"\n'), "label-file", PICKER, "labels.txt"),
    Case("labels outside", edit(PICKER, '"BEST"\n', '"BEST"\n    label_filename: "../reader/config.pbtxt"\n'), "label-file", PICKER, "../reader"),
]  # fmt: skip

SERVING = [
    Case("a GPU alone", edit(SCORER, "KIND_AUTO", "KIND_GPU"), "instance-device", SCORER, "KIND_GPU"),
    Case("named GPUs", edit(SCORER, "count: 1", "count: 1\n    gpus: [ 0 ]"), "instance-device", SCORER, "gpus"),
    Case("no count", edit(SCORER, "    count: 1\n", ""), "instance-count", SCORER, 19),
    Case("no instance group", edit(PICKER, GROUP, ""), "instance-count", PICKER, 1),
    Case("a negative count", edit(PICKER, "count: 1", "count: -2"), "instance-count", PICKER, "count: -2"),
    Case("hundreds of processes", edit(PICKER, "count: 1", "count: 300"), "instance-count", PICKER, "count: 300"),
    Case("a name of groups twice", edit(PICKER, GROUP, 'instance_group [ { name: "a" count: 1 kind: KIND_CPU },\n  { name: "a" count: 1 kind: KIND_CPU } ]\n'), "instance-group", PICKER, 24),
    Case("a profile outside TensorRT", edit(PICKER, "count: 1", 'count: 1\n    profile: "0"'), "instance-group", PICKER, "profile"),
    Case("passive instances alone", edit(PICKER, "count: 1", "count: 1\n    passive: true"), "instance-group", PICKER, "passive"),
    Case("a preferred size above the largest", edit(READER, "[ 4, 8 ]", "[ 4, 16 ]"), "dynamic-batching", READER, "[ 4, 16 ]"),
    Case("a preferred size of 0", edit(READER, "[ 4, 8 ]", "[ 0, 8 ]"), "dynamic-batching", READER, "[ 0, 8 ]"),
    Case("batching of what does not batch", append(PICKER, "dynamic_batching {}\n") and both(edit(PICKER, "max_batch_size: 8", "max_batch_size: 0"), edit(PICKER, "dims: [ -1 ]", "dims: [ -1, 3 ]"), edit(PICKER, "TYPE_INT64\n    dims: [ 1 ]", "TYPE_INT64\n    dims: [ -1, 1 ]"), append(PICKER, "dynamic_batching {}\n")), "batching-idle", PICKER, "dynamic_batching"),
    Case("milliseconds for microseconds", edit(READER, "microseconds: 100", "microseconds: 5000000"), "queue-delay", READER, "5000000"),
    Case("a priority beyond the levels", edit(READER, "max_queue", "priority_levels: 2\n  default_priority_level: 3\n  max_queue"), "dynamic-batching", READER, "default_priority_level"),
    Case("a queue policy beyond the levels", edit(READER, "max_queue", "priority_levels: 2\n  default_priority_level: 1\n  priority_queue_policy { key: 5 value {} }\n  max_queue"), "dynamic-batching", READER, "priority_queue_policy"),
    Case("order and priorities", edit(READER, "max_queue", "preserve_ordering: true\n  priority_levels: 2\n  default_priority_level: 1\n  max_queue"), "dynamic-batching", READER, "preserve_ordering"),
    Case("a cache of decoupled answers", append(PICKER, "response_cache { enable: true }\nmodel_transaction_policy { decoupled: true }\n"), "response-cache", PICKER, "response_cache", ("decoupled",)),
    Case("a batch input of no input", append(SCORER, 'batch_input [ { kind: BATCH_ELEMENT_COUNT target_name: "C" data_type: TYPE_FP32 source_input: "NOPE" } ]\n'), "tensor-option", SCORER, "batch_input"),
    Case("a batch output of no output", append(SCORER, 'batch_output [ { kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "NOPE" source_input: "FEATURES" } ]\n'), "tensor-option", SCORER, "batch_output"),
    Case("a state without a type", append(PICKER, 'sequence_batching { state [ { input_name: "S" output_name: "T" dims: [ 1 ] } ] }\n'), "sequence-batching", PICKER, "sequence_batching"),
    Case("a state of no size", append(PICKER, 'sequence_batching { state [ { input_name: "S" output_name: "T" data_type: TYPE_FP32 dims: [ 0 ] } ] }\n'), "sequence-batching", PICKER, "sequence_batching"),
    Case("a state from a missing file", append(PICKER, 'sequence_batching { state [ { input_name: "S" output_name: "T" data_type: TYPE_FP32 dims: [ 1 ] initial_state { name: "i" data_type: TYPE_FP32 dims: [ 1 ] data_file: "nope" } } ] }\n'), "sequence-batching", PICKER, "sequence_batching"),
    Case("a sequence control without values", append(PICKER, 'sequence_batching { control_input [ { name: "START" control [ { kind: CONTROL_SEQUENCE_START } ] } ] }\n'), "sequence-batching", PICKER, "START"),
    Case("a warm-up of no input", edit(READER, 'key: "TEXT"', 'key: "TEKST"'), "warmup", READER, "inputs {"),
    Case("a warm-up of another type", edit(READER, "TYPE_STRING dims", "TYPE_INT32 dims"), "warmup", READER, "inputs {"),
    Case("a warm-up with the batch in its dims", edit(READER, "dims: [ 1 ] zero", "dims: [ 1, 1 ] zero"), "warmup", READER, "inputs {"),
    Case("a warm-up with a free dimension", edit(READER, "dims: [ 1 ] zero", "dims: [ -1 ] zero"), "warmup", READER, "inputs {"),
    Case("a warm-up without data", edit(READER, " zero_data: true", ""), "warmup", READER, "inputs {"),
    Case("a warm-up from a missing file", edit(READER, "zero_data: true", 'input_data_file: "text"'), "warmup", READER, "inputs {"),
    Case("a warm-up larger than a batch", edit(READER, "batch_size: 1\n", "batch_size: 9\n"), "warmup", READER, "batch_size: 9"),
    Case("a warm-up of nothing", edit(READER, "    batch_size: 1\n", ""), "warmup", READER, 40),
]  # fmt: skip

PYTHON = [
    Case("responses that are never added", edit(PICKER_PY, "            responses.append(\n                pb_utils", "            print(\n                pb_utils"), "python-execute", PICKER_PY, "return responses"),
    Case("a response of a tensor alone", edit(READER_PY, "InferenceResponse([tensor])", 'InferenceResponse(pb_utils.Tensor("FEATURES", rows.astype(np.float32)))'), "code-response", READER_PY, "InferenceResponse"),
    Case("a tensor of its name", edit(READER_PY, 'pb_utils.Tensor("FEATURES", rows.astype(np.float32))', 'pb_utils.Tensor(rows.astype(np.float32), "FEATURES")'), "code-response", READER_PY, "pb_utils.Tensor(", ("code-tensor",)),
    Case("an attribute that nothing sets", edit(READER_PY, "* self.scale", "* self.scales"), "python-name", READER_PY, "self.scales"),
    Case("a class that only a script has", write(PICKER_PY, 'if __name__ == "__main__":\n\n    class TritonPythonModel:\n        pass\n'), "python-class", PICKER_PY, 1),
    Case("a branch of execute that returns nothing", edit(PICKER_PY, "        return responses", "        if len(responses) > 3:\n            return None\n        return responses"), "python-execute", PICKER_PY, "return None"),
    Case("a name that nothing defines", edit(READER_PY, "import numpy as np\n", ""), "python-name", READER_PY, "np.stack"),
    Case("a misspelt name in a helper", edit("reader/1/features.py", "np.bincount", "npp.bincount"), "python-name", "reader/1/features.py", "npp."),
    Case("initialize misspelt", edit(READER_PY, "def initialize", "def initialise"), "python-method", READER_PY, "initialise"),
    Case("a parameter that the config lacks", edit(READER, 'key: "scale"', 'key: "Scale"'), "code-parameter", READER_PY, "parameters"),
    Case("a parameter through a name", edit(READER_PY, "        self.scale =", '        p = config["parameters"]\n        self.depth = p["depth"]\n        self.scale ='), "code-parameter", READER_PY, 'p["depth"]'),
    Case("a file that is not there", edit(READER_PY, "        self.scale =", '        from pathlib import Path\n        self.words = Path(args["model_repository"], args["model_version"], "words.txt").read_text()\n        self.scale ='), "code-file", READER_PY, "words.txt"),
    Case("a file that is not beside the code", edit(READER_PY, "        self.scale =", '        from pathlib import Path\n        self.words = (Path(__file__).resolve().parent / "words.txt").read_text()\n        self.scale ='), "code-file", READER_PY, "words.txt"),
    Case("a file in the working directory", both(write("reader/1/words.txt"), edit(READER_PY, "        self.scale =", '        self.words = open("words.txt").read()\n        self.scale =')), "code-file", READER_PY, "words.txt"),
    Case("a relative path to nothing", edit(READER_PY, "        self.scale =", '        self.words = open("words").read()\n        self.scale ='), "code-file", READER_PY, 'open("words")'),
    Case("a relative path through a name", edit(READER_PY, "        self.scale =", '        words = "data/words.txt"\n        self.words = open(file=words).read()\n        self.scale ='), "code-file", READER_PY, "open(file"),
    Case("a relative path of a Path", edit(READER_PY, "        self.scale =", '        from pathlib import Path\n        self.words = (Path("data") / "words.txt").read_text()\n        self.scale ='), "code-file", READER_PY, "read_text"),
    Case("a relative path of a library", edit(READER_PY, "        self.scale =", '        self.words = np.load("words.npy")\n        self.scale ='), "code-file", READER_PY, "np.load"),
    Case("an environment that is not there", append(READER, 'parameters { key: "EXECUTION_ENV_PATH" value { string_value: "$$TRITON_MODEL_DIRECTORY/env.tar.gz" } }\n'), "artefact-missing", READER, "EXECUTION"),
    Case("Python that does not parse", append(READER_PY, "def broken(:\n"), "python-syntax", READER_PY, "broken(:"),
    Case("a helper that does not parse", append("reader/1/features.py", "return 1 +\n"), "python-syntax", "reader/1/features.py", "return 1 +"),
    Case("null bytes", write(READER_PY, b"x = 1\ny = \0\n"), "python-syntax", READER_PY, 2),
    Case("text in Latin-1 without a declaration", write(READER_PY, "x = 1\ny = 'caf\xe9'\n".encode("latin-1")), "python-syntax", READER_PY, 2),
    Case("an encoding that nobody knows", write(READER_PY, "# coding: latin-99\n"), "python-syntax", READER_PY),
    Case("a class of another name", edit(READER_PY, "class TritonPythonModel", "class TritonModel"), "python-class", READER_PY, 1),
    Case("an empty model.py", write(READER_PY, ""), "python-class", READER_PY, 1),
    Case("a class without execute", edit(READER_PY, "def execute", "def exectue"), "python-execute", READER_PY, "class Triton"),
    Case("execute without a return", edit(PICKER_PY, "        return responses\n", ""), "python-execute", PICKER_PY, "def execute"),
    Case("execute that only raises", edit(READER_PY, EXECUTE, '        if len(requests) > 3:\n            raise ValueError(requests)\n        raise NotImplementedError("later")\n'), "python-execute", READER_PY, "def execute"),
    Case("execute that returns None", edit(PICKER_PY, "return responses", "return None"), "python-execute", PICKER_PY, "def execute"),
    Case("execute that yields", edit(READER_PY, EXECUTE, "        for request in requests:\n            yield self.answer(request)\n"), "python-execute", READER_PY, "def execute"),
    Case("execute that answers the first alone", edit(PICKER_PY, "        return responses", "            return responses"), "python-execute", PICKER_PY, "return responses"),
    Case("execute that returns one response", edit(READER_PY, EXECUTE, "        return pb_utils.InferenceResponse([])\n"), "python-execute", READER_PY, "InferenceResponse([])"),
    Case("execute that returns a fixed list", edit(READER_PY, EXECUTE, "        return [self.answer(requests[0])]\n"), "python-execute", READER_PY, "requests[0]"),
    Case("execute that returns a tuple", edit(READER_PY, EXECUTE, "        return (self.answer(requests[0]),)\n"), "python-execute", READER_PY, "requests[0]"),
    Case("execute without requests", edit(READER_PY, "def execute(self, requests):", "def execute(self):\n        requests = []"), "python-signature", READER_PY, "def execute"),
    Case("initialize without arguments", edit(READER_PY, "def initialize(self, args):", "def initialize(self):\n        args = {}"), "python-signature", READER_PY, "def initialize"),
    Case("a constructor that wants something", edit(READER_PY, "    def initialize", "    def __init__(self, path):\n        self.path = path\n\n    def initialize"), "python-signature", READER_PY, "__init__"),
    Case("auto_complete_config of an instance", edit(READER_PY, "    def initialize", "    def auto_complete_config(self, config):\n        return config\n\n    def initialize"), "python-signature", READER_PY, "auto_complete_config"),
    Case("initialize that never ends", edit(READER_PY, "        self.scale =", "        while True:\n            pass\n        self.scale ="), "python-endless", READER_PY, "while True"),
    Case("execute that never ends", edit(READER_PY, EXECUTE, "        while 1:\n            pass\n" + EXECUTE), "python-endless", READER_PY, "while 1"),
    Case("a package that is not installed", edit(READER_PY, "import json\n", "import json\nimport torch_of_tomorrow\n"), "import-unverified", READER_PY, "torch_of_tomorrow"),
    Case("a misspelt package", edit(READER_PY, "import json\n", "import json\nimport transfomers\n"), "import-missing", READER_PY, "transfomers"),
    Case("an import in a method", edit(PICKER_PY, "        responses = []", "        from nowhere.at_all import x\n        responses = []"), "import-unverified", PICKER_PY, "nowhere"),
    Case("a helper that is not there", remove("reader/1/features.py"), "import-unverified", READER_PY, "from features"),
    Case("a name that the helper lacks", edit(READER_PY, "import WIDTH, features", "import WIDTHS, features"), "import-missing", READER_PY, "WIDTHS"),
    Case("an import from above", edit(READER_PY, "from features", "from ..features"), "import-missing", READER_PY, "..features"),
    Case("a helper that the standard library hides", both(rename("reader/1/features.py", "tokenize.py"), edit(READER_PY, "from features", "from tokenize")), "import-shadowed", READER_PY, "from tokenize"),
    Case("an input that the config lacks", edit(READER_PY, '"TEXT")', '"TEXTS")'), "code-tensor", READER_PY, '"TEXTS"'),
    Case("an input in a loop over constants", edit(READER_PY, '        texts = pb_utils.get_input_tensor_by_name(request, "TEXT")', '        names = ("TEXT", "BOOSTS")\n        both = [pb_utils.get_input_tensor_by_name(request, name) for name in names]\n        texts = both[0]'), "code-tensor", READER_PY, "for name in names"),
    Case("an output that the config lacks", edit(READER_PY, 'Tensor("FEATURES"', 'Tensor("FEATURE"'), "code-tensor", READER_PY, 'Tensor("FEATURE"'),
    Case("an output that is never made", edit(PICKER_PY, '                        pb_utils.Tensor("LABEL", labels.astype(np.object_)),\n', ""), "code-tensor", PICKER, '"LABEL"'),
    Case("an output of another type", edit(PICKER_PY, "best.astype(np.int64)", "best.astype(np.int32)"), "code-data-type", PICKER_PY, "np.int32"),
    Case("text of a type that Triton cannot send", edit(PICKER_PY, "labels.astype(np.object_)", "labels.astype(str)"), "code-data-type", PICKER_PY, "astype(str)"),
    Case("a called model that is not there", edit(PICKER_PY, "        responses = []", '        pb_utils.InferenceRequest(model_name="raeder", requested_output_names=[], inputs=[])\n        responses = []'), "step-missing", PICKER_PY, "raeder"),
    Case("a called model", edit(PICKER_PY, "        responses = []", '        pb_utils.InferenceRequest(model_name="reader", requested_output_names=[], inputs=[])\n        responses = []'), "code-model", PICKER_PY, "InferenceRequest"),
]  # fmt: skip

ONNX = [
    Case("no ONNX model", remove("scorer/1/model.onnx"), "version-empty", "scorer/1"),
    Case("an empty ONNX model", write("scorer/1/model.onnx", b""), "artefact-missing", "scorer/1/model.onnx"),
    Case("an ONNX model that is text", write("scorer/1/model.onnx", "not a model\n"), "onnx-unreadable", "scorer/1/model.onnx"),
    Case("half an ONNX model", lambda root: (root / "scorer/1/model.onnx").write_bytes(onnx_bytes()[:100]), "onnx-unreadable", "scorer/1/model.onnx"),
    Case("an operator that does not exist", onnx(operator="MatMull"), "onnx-unreadable", "scorer/1/model.onnx"),
    Case("an opset of tomorrow", onnx(opset=99), "onnx-version", "scorer/1/model.onnx"),
    Case("an IR of tomorrow", onnx(ir_version=99), "onnx-version", "scorer/1/model.onnx"),
    Case("another name of an input", onnx(inputs=(("features", "FLOAT", ("N", 4)),)), "onnx-tensor", SCORER, '"FEATURES"'),
    Case("another name of an output", onnx(output="scores"), "onnx-tensor", SCORER, '"SCORES"'),
    Case("an input that is not declared", onnx(inputs=(("FEATURES", "FLOAT", ("N", 4)), ("MASK", "FLOAT", ("N", 4)))), "onnx-tensor", SCORER, 5),
    Case("another type of an input", onnx(inputs=(("FEATURES", "DOUBLE", ("N", 4)),), operator="Identity"), "onnx-unreadable", "scorer/1/model.onnx"),
    Case("another type of an output", onnx(out_type="DOUBLE"), "onnx-data-type", SCORER, 14),
    Case("another size of an input", edit(SCORER, "dims: [ 4 ]", "dims: [ 5 ]"), "onnx-shape", SCORER, "dims: [ 5 ]", ("ensemble-shape",)),
    Case("another size of an output", edit(SCORER, "dims: [ 3 ]", "dims: [ -1 ]"), "onnx-shape", SCORER, "dims: [ -1 ]"),
    Case("the batch in the dims", edit(SCORER, "dims: [ 4 ]", "dims: [ -1, 4 ]"), "onnx-shape", SCORER, "dims: [ -1, 4 ]", ("ensemble-shape",)),
    Case("a fixed batch", onnx(inputs=(("FEATURES", "FLOAT", (1, 4)),), rows=1), "onnx-shape", SCORER, "dims: [ 4 ]"),
    Case("external data that is missing", external_onnx("weights.bin", None), "onnx-external-data", "scorer/1/model.onnx"),
    Case("external data that is cut short", external_onnx("weights.bin", b"\1" * 20), "onnx-external-data", "scorer/1/model.onnx"),
    Case("external data elsewhere", external_onnx("/etc/hostname", None), "onnx-external-data", "scorer/1/model.onnx"),
    Case("a reshape that the stand-in lacks", edit(SCORER, "dims: [ 4 ]", "dims: [ 2, 2 ] reshape { shape: [ 4 ] }"), "onnx-local", SCORER, 5, ("ensemble-shape",)),
]  # fmt: skip

ENSEMBLE = [
    Case("instances of an ensemble", append(RANKER, "instance_group { count: 1 }\n"), "ensemble-forbidden", RANKER, "instance_group"),
    Case("a warm-up of an ensemble", append(RANKER, 'model_warmup [ { name: "x" batch_size: 1 } ]\n'), "ensemble-forbidden", RANKER, "model_warmup"),
    Case("an optimization of an ensemble", append(RANKER, "optimization { eager_batching: true }\n"), "ensemble-forbidden", RANKER, "optimization"),
    Case("batching of an ensemble", append(RANKER, "dynamic_batching {}\n"), "config-duplicate", RANKER, "dynamic_batching"),
    Case("a step that is not there", edit(RANKER, '"scorer"', '"scorrer"'), "step-missing", RANKER, '"scorrer"'),
    Case("a step without a name", edit(RANKER, '      model_name: "picker"\n', ""), "ensemble-step", RANKER, 37),
    Case("a step without outputs", edit(RANKER, '      output_map { key: "BEST" value: "BEST" }\n', ""), "ensemble-step", RANKER, 37, ("ensemble-unwritten",)),
    Case("a step's version that is not there", edit(RANKER, "model_version: 1", "model_version: 7"), "step-missing", RANKER, "model_version: 7"),
    Case("a pin that the step's policy leaves out", both(edit(READER, "version_policy: { all {} }", "version_policy: { specific { versions: [ 2 ] } }"), lambda root: shutil.copytree(root / "reader/1", root / "reader/2")), "step-unserved", RANKER, "model_version: 1"),
    Case("a step that follows the latest", edit(RANKER, "model_version: 1", "model_version: -1"), "step-unpinned", RANKER, "model_version: -1"),
    Case("a step without a version", edit(RANKER, "      model_version: 1\n", ""), "step-unpinned", RANKER, 25),
    Case("an input that is not mapped", edit(RANKER, 'input_map { key: "TEXT" value: "TEXT" }', 'input_map { key: "BOOST" value: "TEXT" }'), "ensemble-map", RANKER, 25, ("ensemble-data-type",)),
    Case("an input that the step lacks", edit(RANKER, 'input_map { key: "SCORES"', 'input_map { key: "SCORE"'), "ensemble-map", RANKER, 'key: "SCORE"', ("ensemble-map",)),
    Case("an output that the step lacks", edit(RANKER, 'output_map { key: "FEATURES"', 'output_map { key: "FEATURE"'), "ensemble-map", RANKER, 'key: "FEATURE"'),
    Case("a tensor that nothing writes", edit(RANKER, 'input_map { key: "FEATURES" value: "features" }', 'input_map { key: "FEATURES" value: "feature" }'), "ensemble-unwritten", RANKER, 'value: "feature"', ("ensemble-unused",)),
    Case("an output that nothing writes", edit(RANKER, '  {\n    name: "BEST"', '  {\n    name: "WORST"'), "ensemble-unwritten", RANKER, '"WORST"', ("ensemble-unused", "sample")),
    Case("a tensor that is written twice", edit(RANKER, 'output_map { key: "BEST" value: "BEST" }', 'output_map { key: "BEST" value: "BEST" }\n      output_map { key: "LABEL" value: "features" }'), "ensemble-rewritten", RANKER, '"LABEL"'),
    Case("an input that a step writes", edit(RANKER, 'output_map { key: "BEST" value: "BEST" }', 'output_map { key: "BEST" value: "BEST" }\n      output_map { key: "LABEL" value: "TEXT" }'), "ensemble-rewritten", RANKER, '"LABEL"'),
    Case("an input that nothing reads", edit(RANKER, "    dims: [ 1 ]\n  }\n]\noutput", '    dims: [ 1 ]\n  },\n  {\n    name: "MORE"\n    data_type: TYPE_FP32\n    dims: [ 1 ]\n  }\n]\noutput'), "ensemble-unused", RANKER, '"MORE"', ("sample",)),
    Case("a tensor that nothing reads", edit(RANKER, 'output_map { key: "BEST" value: "BEST" }', 'output_map { key: "BEST" value: "BEST" }\n      output_map { key: "LABEL" value: "label" }'), "ensemble-unused", RANKER, '"label"'),
    Case("steps in a circle", edit(RANKER, 'input_map { key: "TEXT" value: "TEXT" }', 'input_map { key: "TEXT" value: "TEXT" }\n      input_map { key: "BOOST" value: "SCORES" }'), "ensemble-cycle", RANKER, 25, ("ensemble-shape",)),
    Case("an ensemble that calls itself", edit(RANKER, '"scorer"', '"ranker"'), "ensemble-cycle", RANKER, 'model_name: "ranker"', ("ensemble-map", "ensemble-data-type", "ensemble-shape")),
    Case("ensembles that call each other", both(nested_ensembles, edit(RANKER, '"scorer"', '"outer"')), "ensemble-cycle", RANKER, '"outer"', ("ensemble-map", "ensemble-shape", "ensemble-data-type")),
    Case("types that do not fit", edit(RANKER, "TYPE_INT64", "TYPE_INT32"), "ensemble-data-type", RANKER, '"BEST"'),
    Case("shapes that do not fit", edit(RANKER, "dims: [ 3 ]", "dims: [ 5 ]"), "ensemble-shape", RANKER, '"SCORES"'),
    Case("shapes of different rank", edit(RANKER, "dims: [ 3 ]", "dims: [ 3, 1 ]"), "ensemble-shape", RANKER, '"SCORES"'),
    Case("shapes that do not fit between steps", edit(PICKER, "dims: [ -1 ]", "dims: [ 2 ]"), "ensemble-shape", RANKER, 'input_map { key: "SCORES"'),
    Case("a batch larger than a step's", edit(SCORER, "max_batch_size: 8", "max_batch_size: 4"), "ensemble-batch", RANKER, 3),
    Case("a step that does not batch", edit(PICKER, "max_batch_size: 8", "max_batch_size: 0"), "ensemble-batch", RANKER, 'input_map { key: "SCORES"'),
]  # fmt: skip

STRAYS = [
    Case("bytecode", write("reader/1/__pycache__/model.cpython-311.pyc"), "stray-bytecode", "reader/1/__pycache__"),
    Case("a compiled file", write("reader/1/features.pyc"), "stray-bytecode", "reader/1/features.pyc"),
    Case("what macOS leaves", write("ranker/1/.DS_Store"), "stray-file", "ranker/1/.DS_Store"),
    Case("what an editor leaves", write("reader/1/.model.py.swp"), "stray-file", "reader/1/.model.py.swp"),
    Case("a backup", write("reader/config.pbtxt~"), "stray-file", "reader/config.pbtxt~"),
    Case("a notebook's checkpoints", write("reader/.ipynb_checkpoints/x.py"), "stray-file", "reader/.ipynb_checkpoints"),
    Case("a huge file", both(write("reader/1/data.csv"), lambda root: os.truncate(root / "reader/1/data.csv", 3 * 2**30)), "stray-large", "reader/1/data.csv"),
    Case("a pointer of Git LFS", write("scorer/1/model.onnx", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"), "stray-lfs", "scorer/1/model.onnx"),
    Case("a pickle", write("reader/1/table.pkl", b"\x80\x04K\x01."), "stray-pickle", "reader/1/table.pkl"),
    Case("a pickle in disguise", write("reader/1/table.bin", b"\x80\x04\x95\x0a\x00\x00\x00\x00\x00\x00\x00}\x94."), "stray-pickle", "reader/1/table.bin"),
    Case("code that reads a pickle", edit(READER_PY, "        self.scale =", '        import pickle\n        self.table = pickle.load(open("t", "rb"))\n        self.scale ='), "stray-pickle", READER_PY, "pickle.load", also=("code-file",)),
    Case("an array that may hold a pickle", edit(READER_PY, "        self.scale =", '        self.table = np.load("t.npz", allow_pickle=True)\n        self.scale ='), "stray-pickle", READER_PY, "allow_pickle", also=("code-file",)),
    Case("a link out of the folder", lambda root: (root / "reader/1/config").symlink_to(root / SCORER), "stray-link", "reader/1/config"),
    Case("a link inside the folder", lambda root: (root / "reader/1/more.py").symlink_to("features.py"), "stray-link", "reader/1/more.py"),
    Case("a dead link", lambda root: (root / "reader/1/data").symlink_to("nowhere"), "unreadable", "reader/1/data"),
    Case("a pipe", lambda root: os.mkfifo(root / "reader/1/pipe"), "unreadable", "reader/1/pipe"),
    Case("an empty folder", lambda root: (root / "reader/1/data").mkdir(), "stray-folder", "reader/1/data"),
    Case("a path of one machine in the code", edit(READER_PY, "        self.scale =", '        self.table = np.load("/home/alice/table.npz")\n        self.scale ='), "absolute-path", READER_PY, "alice"),
    Case("a path of one machine in the config", edit(READER, '"0.5"', '"/mnt/models/weights"'), "absolute-path", READER, "parameters {"),
]  # fmt: skip

SAMPLES = [
    Case("a sample that is no JSON", write("ranker/samples/word.json", '{\n  "inputs": {"TEXT": [}\n}\n'), "sample", "ranker/samples/word.json", 2),
    Case("a sample without inputs", write("ranker/samples/word.json", "{}\n"), "sample", "ranker/samples/word.json"),
    Case("a sample of an unknown input", write("ranker/samples/word.json", '{"inputs": {\n  "TEXTS": ["a"]}}\n'), "sample", "ranker/samples/word.json", 2),
    Case("a sample of another shape", write("ranker/samples/word.json", '{"inputs":\n  {"TEXT": ["a", "b"]}}\n'), "sample", "ranker/samples/word.json", 2),
    Case("a sample of another type", write("ranker/samples/word.json", '{"inputs":\n  {"TEXT": [1]}}\n'), "sample", "ranker/samples/word.json", 2),
    Case("a sample with an unknown key", write("ranker/samples/word.json", '{"inputs": {"TEXT": ["a"]},\n "output": {}}\n'), "sample", "ranker/samples/word.json", 2),
    Case("a sample of another kind", write("ranker/samples/word.yaml", "inputs: {}\n"), "sample", "ranker/samples/word.yaml"),
]  # fmt: skip

ID = 'sequence_batching { control_input [ { name: "ID" control [ { kind: CONTROL_SEQUENCE_CORRID data_type: TYPE_STRING } ] } ] }\n'
STATE = 'sequence_batching { state [ { input_name: "I" output_name: "O" data_type: TYPE_FP32 dims: [ 2 ] initial_state { name: "zero" data_type: TYPE_FP32 dims: [ 2 ] zero_data: true } } ] }\n'
COMPLETING = '    @staticmethod\n    def auto_complete_config(config):\n        more = {"name": "MORE", "data_type": "TYPE_FP32", "dims": [1]}\n        config.add_input(more)\n        return config\n\n'
ADD = "class TritonPythonModel:\n"
SEND = "        for request in requests:\n            request.get_response_sender().send(self.answer(request))\n"

ANSWERING = [
    Case("decoupled answers", append(PICKER, "model_transaction_policy { decoupled: true }\n"), "decoupled", PICKER, "decoupled"),
    Case("a decoupled step", append(PICKER, "model_transaction_policy { decoupled: true }\n"), "decoupled", RANKER, 37),
    Case("a text correlation ID", append(PICKER, ID), "sequence-text-id", PICKER, "CORRID"),
    Case("a correlation ID of a type that Triton refuses", append(PICKER, ID.replace("STRING", "FP32")), "sequence-batching", PICKER, "CORRID"),
    Case("an initial state of other dims", append(PICKER, STATE.replace("dims: [ 2 ] zero", "dims: [ 3 ] zero")), "sequence-batching", PICKER, "initial", ("code-tensor",)),
    Case("an initial state of another type", append(PICKER, STATE.replace("TYPE_FP32 dims: [ 2 ] zero", "TYPE_INT32 dims: [ 2 ] zero")), "sequence-batching", PICKER, "initial", ("code-tensor",)),
    Case("no config of an ONNX model", remove(SCORER), "config-completed", "scorer"),
    Case("an empty config of an ONNX model", write(SCORER, ""), "config-completed", SCORER, 1),
    Case("a bare config of vLLM", both(write(PICKER, 'name: "picker"\nbackend: "vllm"\ninstance_group [ { count: 1 kind: KIND_MODEL } ]\n'), write("picker/1/model.json", "{}")), "config-completed", PICKER, 1),
    Case("an input that auto_complete_config adds", both(edit(READER_PY, ADD, ADD + COMPLETING), edit(READER_PY, '"BOOST"', '"MORE"')), "config-completed", READER, 5),
    Case("inputs that auto_complete_config declares", both(edit(PICKER_PY, ADD, ADD + COMPLETING), edit(PICKER, PICKER_INPUT, "")), "config-completed", PICKER, 1),
    Case("an optional input for a required one", edit(RANKER, "TYPE_STRING\n    dims: [ 1 ]", "TYPE_STRING\n    dims: [ 1 ]\n    optional: true"), "ensemble-optional", RANKER, 'key: "TEXT"'),
    Case("a config in the version's folder", lambda root: (root / PICKER).rename(root / "picker/1/config.pbtxt"), "config-missing", "picker"),
    Case("an output that is not declared beside those that are", edit(READER_PY, "InferenceResponse([tensor])", 'InferenceResponse([tensor, pb_utils.Tensor("MORE", rows)])'), "code-undeclared", READER_PY, '"MORE"'),
    Case("a name that the utilities do not have yet", edit(READER_PY, "import json\n", "import json\nfrom triton_python_backend_utils import Tensor\n"), "import-missing", READER_PY, "import Tensor"),
    Case("text that is not encoded", edit(PICKER_PY, 'pb_utils.Tensor("LABEL", labels.astype(np.object_))', 'pb_utils.Tensor("LABEL", np.array([["a"]]))'), "code-data-type", PICKER_PY, '"LABEL"'),
    Case("a single value for an array", edit(PICKER_PY, "best.astype(np.int64)", "np.int64(best.sum())"), "code-response", PICKER_PY, '"BEST"'),
    Case("no responses", edit(READER_PY, EXECUTE, "        return []\n"), "python-execute", READER_PY, "return []"),
    Case("None for each request", edit(READER_PY, EXECUTE, "        return [None for _ in requests]\n"), "python-execute", READER_PY, "return [None"),
    Case("execute that is nothing", append(READER_PY, "\n    execute = None\n"), "python-execute", READER_PY, "execute = None"),
    Case("a tuple of responses", edit(READER_PY, EXECUTE, "        return tuple(self.answer(request) for request in requests)\n"), "python-execute", READER_PY, "return tuple"),
    Case("responses that never end", edit(READER_PY, EXECUTE, SEND), "python-execute", READER_PY, "def execute"),
]  # fmt: skip
"""What Triton loads and never answers as it should, each tried on Triton 2.51."""

CASES = [*CONFIG, *LAYOUT, *BACKEND, *TENSORS, *SERVING, *PYTHON, *ONNX, *ENSEMBLE, *STRAYS, *SAMPLES, *ANSWERING]


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("sound") / "models")


@pytest.fixture
def models(sound: Path, tmp_path: Path) -> Iterator[Path]:
    yield copy_base(sound, tmp_path / "models")


def line_of(path: Path, at: str | int | None) -> int:
    if at is None:
        return 0
    if isinstance(at, int):
        return at
    lines = path.read_text(errors="replace").splitlines()
    return next(number for number, line in enumerate(lines, 1) if at in line)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_a_mistake_is_found_where_it_is_and_nothing_else(case: Case, models: Path) -> None:
    case.change(models)
    findings = check_models(models, MODELS)
    shown = "\n".join(map(str, findings))
    wanted = (case.kind, case.file, line_of(models / case.file, case.at))
    assert wanted in {(finding.kind, finding.file, finding.line) for finding in findings}, shown
    assert {finding.kind for finding in findings} <= {case.kind, *case.also}, shown
    assert all(finding.message and finding.model == finding.file.partition("/")[0] for finding in findings), shown


def test_the_base_is_sound(sound: Path) -> None:
    assert check_models(sound, MODELS) == ()


def test_a_name_with_a_blank_is_found(models: Path) -> None:
    (models / "picker").rename(models / "pick er")
    found = {(finding.kind, finding.file) for finding in check_models(models, ["pick er"])}
    assert found == {("name-unsafe", "pick er"), ("name-mismatch", "pick er/config.pbtxt")}


def test_every_kind_of_the_checks_has_a_case() -> None:
    from tidegate.models.lint.kinds import CHECKED

    elsewhere = {
        "artefact-ignored",
        "accepted-file",
        "accepted-unused",
        "name-unsafe",
        "model-missing",
        "onnx-device",
        "onnx-unchecked",
    }
    assert {kind.name for kind in CHECKED} == {case.kind for case in CASES} | elsewhere


def test_one_broken_model_hides_no_other(models: Path) -> None:
    broken = {"an unknown field", "execute without a return", "half an ONNX model", "instances of an ensemble"}
    for case in CASES:
        if case.name in broken:
            case.change(models)
    found = {(finding.model, finding.kind) for finding in check_models(models, MODELS)}
    assert found >= {
        ("reader", "config-unknown-field"),
        ("picker", "python-execute"),
        ("scorer", "onnx-unreadable"),
        ("ranker", "ensemble-forbidden"),
    }


def test_several_mistakes_of_one_config_are_all_found(models: Path) -> None:
    config = models / READER
    text = config.read_text().replace("max_batch_size", "batch").replace("TYPE_STRING\n", "TYPE_TEXT\n")
    config.write_text(text.replace("dims: [ 4 ]", "dims: [ 0 ]") + "nothing: 1\n")
    found = [(f.line, f.kind) for f in check_models(models, ["reader"]) if f.file == READER]
    assert {(3, "config-unknown-field"), (7, "config-value"), (21, "tensor-dims"), (49, "config-unknown-field")} <= set(
        found
    )


def test_a_closure_is_checked_and_nothing_beside_it(models: Path) -> None:
    edit(SCORER, "KIND_AUTO", "KIND_GPU")(models)
    assert [finding.model for finding in check_models(models, ["ranker"])] == ["scorer"]
    assert check_models(models, ["picker"]) == ()


def test_a_model_that_is_not_there_is_a_finding(models: Path) -> None:
    assert check_models(models, ["nobody", "picker"]) == (
        ModelFinding(
            "nobody", 0, "model-missing", "there is no model 'nobody'", "add the folder, or correct the name", "nobody"
        ),
    )


def test_severities_and_texts_of_a_finding() -> None:
    finding = ModelFinding("m/config.pbtxt", 3, "step-unpinned", "wrong", "right", "m")
    assert str(finding) == "m/config.pbtxt:3: warning[step-unpinned]: wrong (right)"
    assert finding.as_dict()["severity"] == "warning"
    assert {kind.severity for kind in KINDS.values()} == {"error", "warning"}
