"""Every kind of finding about a model: how serious it is, what it means, and what to do.

docs/model-repository.md has the same table, generated from this one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of finding. An `error` does not load, does not answer, or answers wrongly; a `warning` is likely to, or will
    where the model goes next (another machine, object storage, a new version of a step)."""

    name: str
    severity: Severity
    meaning: str
    remedy: str


def _error(name: str, meaning: str, remedy: str) -> Kind:
    return Kind(name, "error", meaning, remedy)


def _warning(name: str, meaning: str, remedy: str) -> Kind:
    return Kind(name, "warning", meaning, remedy)


CHECKED = (
    _error("model-missing", "There is no folder of the model's name.", "Add the folder, or correct the name."),
    _error("model-empty", "The folder holds neither a config nor a version.", "Add both, or remove the folder."),
    _error("name-unsafe", "The name has characters that hang Triton or that no rule can name.", "Letters, digits, `.`, `_`, `-`; a letter or digit first."),
    _error("name-mismatch", "The config names another model than its folder.", "Make them the same."),
    _error("unreadable", "A file or folder cannot be read.", "Correct its permissions, its type or its encoding."),
    _error("config-missing", "There is no `config.pbtxt`, and Triton cannot complete one.", "Write it in full."),
    _error("config-syntax", "The config is not in protobuf's text format.", "Check brackets, quotes and commas on the line and above."),
    _error("config-unknown-field", "A field that Triton's model config does not have.", "Correct its name or its place."),
    _warning("config-new-field", "A field that the Triton of the local stack (2.51) does not know: it refuses the whole config.", "Do without it, or do not run it locally."),
    _error("config-value", "A value that does not fit its field.", "Use one that the field takes."),
    _error("config-duplicate", "A duplicate field or key, or two that exclude each other.", "Keep one."),
    _error("config-variant", "A file in `configs/` disagrees with `config.pbtxt` about the model.", "Same name, same inputs, same outputs."),
    _error("version-missing", "There is no version folder.", "Add a folder named `1`."),
    _error("version-name", "Looks like a version and is none, or not the one it seems.", "A folder named by a plain number from 1."),
    _error("version-empty", "A version folder without a file; git and object storage lose it.", "Put the model there; an ensemble's gets a `.keep`, which may be empty."),
    _error("version-policy", "The version policy serves nothing, or names what is missing.", "Name versions that have a folder."),
    _warning("ensemble-versions", "An ensemble has several versions, which all share one config.", "Make the variant an ensemble of its own name."),
    _error("backend-missing", "The config says no backend, and the files do not tell.", "Say `backend`."),
    _error("backend-unknown", "A backend, or platform, that the serving image does not have, or whose name is one edit away from a well-known one.", "Correct it, or put its library beside the model."),
    _warning("backend-unverified", "A backend that is none of Triton's own, and which the serving image is not known to have.", "Name the shard's image in fleet.yaml, with its manifest."),
    _error("backend-mismatch", "`backend` and `platform` contradict each other, or the rest of the config.", "Say `backend` alone; ensembles say `platform: \"ensemble\"` alone."),
    _error("artefact-missing", "The file that the backend loads is not there.", "Build it, or correct `default_model_filename`."),
    _warning("artefact-ignored", "A file of the model that git ignores, and that no build lists in `.artefacts.json` as it is: whoever clones the repository lacks it.", "Correct `.gitignore`, or `git add --force`."),
    _error("batch-size", "`max_batch_size` is negative.", "0 for no batching."),
    _error("tensors-missing", "No inputs or no outputs are declared, and Triton cannot complete them.", "Declare them."),
    _error("tensor-name", "A tensor without a name, or a duplicate name.", "One name for each."),
    _error("tensor-data-type", "A tensor without a data type.", "Say `data_type`."),
    _error("tensor-dims", "Dimensions that are missing, 0 or below -1.", "Sizes from 1, or -1 for any."),
    _error("tensor-reshape", "`reshape` does not hold as many elements as `dims`.", "Same number of elements."),
    _error("tensor-option", "An option that does not go with this model.", "Remove it."),
    _error("label-file", "A label file that is missing or outside the model's folder.", "Put it into the model's folder."),
    _error("parameter", "A parameter that the backend cannot use.", "Correct its value."),
    _warning("instance-count", "No instance group, or none with a `count`: how many there are then depends on machine and backend.", "`instance_group [ { kind: KIND_AUTO count: 1 } ]`"),
    _error("instance-device", "An instance group that does not load on every machine.", "`KIND_AUTO` (or `KIND_CPU`), without `gpus`; `configs/gpu.pbtxt` for what differs."),
    _error("instance-group", "An instance group that Triton refuses or that serves nothing.", "Correct it as the message says."),
    _error("dynamic-batching", "Dynamic batching that cannot work as it is set.", "Sizes from 1 to `max_batch_size`; consistent priorities."),
    _warning("batching-idle", "Dynamic batching or ragged inputs of a model that does not batch.", "Set `max_batch_size`, or remove it."),
    _warning("sequence-text-id", "A text correlation ID: Triton 2.51 answers 400 unless the ID has exactly 128 bytes, and the gateway passes on at most 20.", "`data_type: TYPE_UINT64`, and numbers as IDs."),
    _warning("decoupled", "Decoupled responses: `infer`, which is what the gateway passes on, answers 501.", "One response for each request; or callers that `resolve` and then stream over gRPC."),
    _warning("config-completed", "Inputs or outputs that only Triton's completion of configs declares, which deployed servers do without: every request fails there.", "Declare them in `config.pbtxt`."),
    _error("sequence-batching", "Sequence batching that Triton refuses.", "Correct it as the message says."),
    _warning("queue-delay", "Requests wait more than a second for company.", "The field is in microseconds."),
    _error("response-cache", "A response cache with decoupled answers or sequences.", "Disable it."),
    _error("warmup", "A warm-up that does not fit the inputs: the load fails.", "Name, type and full dims of every input."),
    _error("python-syntax", "A Python file that does not parse.", "Correct it."),
    _error("python-class", "`model.py` has no class `TritonPythonModel`: Triton hangs or fails at the load.", "Define it."),
    _error("python-execute", "`execute` is missing, or does not return a list with one response for each request; one that returns nothing never answers.", "`def execute(self, requests)` that returns such a list."),
    _error("python-name", "A name that nothing defines, or an attribute that nothing sets: the line fails when it runs.", "Import, define or set it."),
    _warning("python-method", "A method whose name is almost one that Triton calls.", "Correct its name."),
    _error("python-signature", "A method that Triton cannot call.", "Take the arguments that Triton gives."),
    _error("python-endless", "Code that runs at the load and never ends.", "Remove the loop: Triton would hang."),
    _error("import-missing", "An import that the serving image does not have, or whose name is one edit away from a well-known one.", "Add the file to the version folder, or the package to the image."),
    _warning("import-unverified", "An import which the serving image is not known to have.", "Name the shard's image in fleet.yaml, with its manifest."),
    _warning("import-shadowed", "A module beside `model.py` that another one of its name hides.", "Rename it: the version folder comes last on the path."),
    _error("code-tensor", "The code names a tensor that the config does not have, or never makes one that it has.", "Make them the same."),
    _warning("code-undeclared", "The code makes an output that the config does not declare: Triton drops it.", "Declare it, or do not make it."),
    _error("code-data-type", "The code makes a tensor of another type than the config says; Triton does not check.", "Convert it, or correct the config."),
    _error("code-parameter", "The code reads a parameter that the config does not have: the load fails.", "Add it, or read it with a default."),
    _error("code-file", "The code opens a file that is not there, or by a path that leads elsewhere on the server.", "Build the file; build its path from the model's own folder."),
    _error("code-response", "A response or a tensor is made of the wrong things: every request fails.", "`InferenceResponse([tensor, …])`, `Tensor(\"NAME\", array)`"),
    _warning("code-model", "The code calls another model, which is not loaded with this one.", "Make it a step of an ensemble, or serve it by a rule too."),
    _error("onnx-unreadable", "The ONNX model cannot be loaded.", "Export it again."),
    _error("onnx-version", "The ONNX model is newer than the runtime.", "Export it with an older opset."),
    _error("onnx-external-data", "The ONNX model's external data is missing or outside its folder.", "Keep it beside the model."),
    _error("onnx-tensor", "Config and ONNX model name different tensors.", "Use the ONNX model's names."),
    _error("onnx-data-type", "Config and ONNX model differ in a data type.", "Use the ONNX model's type."),
    _error("onnx-shape", "Config and ONNX model differ in a shape.", "Use the ONNX model's shape, without the batch dimension where it batches."),
    _warning("onnx-device", "ONNX-ML operators, which have no CUDA kernel, in a group that may run on a GPU.", "`KIND_CPU`"),
    _warning("onnx-local", "What the native backend has and the CPU stand-in of the local stack does not.", "Do without it, or do not run it locally."),
    _warning("onnx-unchecked", "The ONNX model was not looked into.", "Install `tidegate[local]`."),
    _error("ensemble-forbidden", "A setting that an ensemble must not have.", "Remove it; steps may have it."),
    _error("ensemble-step", "A step without a model, inputs or outputs; or no step at all.", "Complete it."),
    _error("step-missing", "A step's model or version is not there.", "Add it, or correct the name."),
    _warning("step-unserved", "A step's pinned version has a folder, and the step's version policy leaves it out: Tidegate loads it all the same, Triton by itself refuses the ensemble.", "`version_policy: { all {} }` in the step's config."),
    _warning("step-unpinned", "A step without a pinned version follows every new version at once.", "`model_version: 1`"),
    _error("ensemble-cycle", "An ensemble that calls itself, or steps that wait for each other.", "Break the circle."),
    _error("ensemble-map", "A map names a tensor that its model does not have, or leaves a required input out.", "Map every input that is not optional."),
    _error("ensemble-optional", "An optional input of the ensemble goes to an input that its step requires: a request without it is refused.", "Make both optional, or neither."),
    _error("ensemble-unwritten", "A tensor that is read and that nothing writes.", "Map it from a step's output, or make it an input."),
    _error("ensemble-rewritten", "A tensor that is written twice, or a step's output under the name of an input: Triton never answers.", "Give it a name of its own."),
    _error("ensemble-unused", "An input or a tensor that nothing reads.", "Remove it from the config or from the map."),
    _error("ensemble-data-type", "Two ends of a tensor have different data types.", "Convert in between."),
    _error("ensemble-shape", "Two ends of a tensor have different shapes.", "Reshape in between."),
    _error("ensemble-batch", "A step takes smaller batches than the ensemble.", "Lower the ensemble's `max_batch_size`."),
    _error("accepted-file", "`accepted.yaml` cannot be read, names an unknown kind, or accepts an error.", "See Accepting a warning."),
    _warning("accepted-unused", "An acceptance that matches no warning any more, whose model is gone or whose time is over, or that is there already.", "Remove it, or set a later `until`."),
    _error("sample", "A golden request that cannot be sent.", "See Samples."),
    _warning("stray-bytecode", "Compiled Python: a changed folder makes Triton reload, and it may be of another version.", "Delete it."),
    _warning("stray-file", "What an editor, a tool or an operating system left.", "Delete it."),
    _warning("stray-large", "A file so large that loads from object storage take minutes.", "Keep data out of the repository."),
    _error("stray-lfs", "A pointer of Git LFS or git-annex instead of the file.", "`git lfs pull`"),
    _warning("stray-pickle", "A pickle: loading it runs whatever it says, and it breaks with library versions.", "Use ONNX, `.npz` or JSON."),
    _warning("stray-link", "A link: object storage has none, and Triton's container may not see its end.", "Copy the file."),
    _warning("stray-folder", "An empty folder, which git and object storage lose.", "Delete it, or put a file in."),
    _warning("absolute-path", "A path of one machine.", "Build it from the model's own folder."),
)  # fmt: skip
"""What `tidegate models check` finds, without running anything."""

SMOKED = (
    _error("load-refused", "Triton refused the model, or the server ended while it loaded it.", "The message has Triton's reason."),
    _error("load-hung", "The load did not finish in time; it was killed.", "Look for an endless loop, a wait, or a huge file in `initialize`."),
    _error("answer-hung", "No answer came in time; the server was killed.", "Look for an endless loop or a wait in `execute`."),
    _error("answer-failed", "Triton or the model answered with an error, and where the input was made up, would to any other.", "The message has the reason."),
    _error("model-crashed", "The model's process ended while it answered.", "Look for a crash of native code, `exit`, or too little memory."),
    _error("answer-malformed", "The answer is not in the form of the Open Inference Protocol.", "Report it."),
    _error("output-missing", "A declared output did not come.", "Make it, or remove it from the config."),
    _error("output-undeclared", "An output came that the config does not declare.", "Declare it, or do not send it."),
    _error("output-data-type", "An output has another type than declared; Triton does not check.", "Convert it in the model, or correct the config."),
    _error("output-shape", "An output has another shape than declared; Triton does not check.", "Correct the model or the config."),
    _error("output-rows", "An output does not have one row for each input row.", "Answer every row of a batch."),
    _error("output-not-finite", "An output holds NaN or infinity, which JSON cannot carry.", "Find the division by zero, or mask it."),
    _error("output-unexpected", "An output differs from what the sample expects.", "Correct the model, or the sample where the change is meant."),
    _error("batch-differs", "A row's answer depends on the rows beside it.", "Treat rows apart; mask padding."),
    _warning("samples-missing", "The model has no golden requests; inputs were made from its config.", "Write `samples/*.json`."),
    _warning("made-up-refused", "The model refused inputs that were made from its config.", "Write `samples/*.json` with inputs that make sense."),
)  # fmt: skip
"""What `tidegate models smoke` finds beside it, on a running Triton."""

KINDS = {kind.name: kind for kind in (*CHECKED, *SMOKED)}
