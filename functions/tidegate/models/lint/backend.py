"""Checks that the backend of a model is known, and that nothing in the config contradicts it."""

from __future__ import annotations

from difflib import get_close_matches

from tidegate.language.words import did_you_mean
from tidegate.model_layout import CONFIG
from tidegate.models.lint.folder import DEFAULT_FILES, ENSEMBLE, PLATFORMS, CheckedFolder
from tidegate.models.lint.misspelling import misspelt
from tidegate.triton.installation import BACKENDS

OFFICIAL = frozenset({*DEFAULT_FILES, "fil", "identity", "repeat", "square", "tensorrtllm"})
"""The backends of https://github.com/triton-inference-server/backend and of NVIDIA's images."""

_USUAL_NAMES = {
    "onnx": "onnxruntime", "ort": "onnxruntime", "onnx_runtime": "onnxruntime", "onnxruntime_onnx": "onnxruntime",
    "torch": "pytorch", "libtorch": "pytorch", "torchscript": "pytorch", "pytorch_libtorch": "pytorch",
    "trt": "tensorrt", "tensorrt_plan": "tensorrt", "trtllm": "tensorrtllm", "tensorrt_llm": "tensorrtllm",
    "tf": "tensorflow", "savedmodel": "tensorflow", "tensorflow_savedmodel": "tensorflow",
    "tensorflow_graphdef": "tensorflow", "py": "python", "python3": "python", "xgboost": "fil", "lightgbm": "fil",
}  # fmt: skip
"""Frequent wrong names of backends, with the right ones."""


def check_backend(model: CheckedFolder) -> None:
    config, text = model.config, model.text
    if model.is_ensemble:
        _check_ensemble(model)
        return
    if config.platform and config.platform not in PLATFORMS:
        backend = _USUAL_NAMES.get(config.platform, str(config.platform))
        hint = f'say backend: "{backend}"'
        if not _known(model, backend):
            hint = did_you_mean(backend, set(PLATFORMS), "platform")
        if not config.backend or config.backend in DEFAULT_FILES:
            model.report("backend-unknown", f"{config.platform!r} is not a platform", hint, at=("platform",))
        return
    if config.backend and config.platform and PLATFORMS[config.platform] != config.backend:
        message = f"backend {config.backend!r} and platform {config.platform!r} contradict each other"
        model.report("backend-mismatch", message, "say backend alone", at=("platform",))
        return
    if not model.backend:
        if text.whole() and model.versions and (text.present or not model.was_found("config-missing")):
            hint = f"say backend; known ones: {', '.join(sorted(OFFICIAL - {ENSEMBLE}))}"
            message, file = "neither the config nor the files tell the backend", CONFIG if text.present else ""
            model.report("backend-missing", message, hint, file=file, line=int(text.present))
    elif not _beside(model, model.backend):
        _check_served(model, model.backend, text.line("backend"))


def _check_served(model: CheckedFolder, backend: str, line: int) -> None:
    lacking = [image.name for image in model.images if image.has_backend(backend) is False]
    right = _USUAL_NAMES.get(backend.lower()) or misspelt(backend, OFFICIAL)
    close = [right] if right else get_close_matches(backend, sorted(OFFICIAL), 1)
    meant = f"did you mean {close[0]!r}?" if close else ""
    if lacking:
        hint = meant or "serve it from an image that has it, or correct its manifest"
        model.report("backend-unknown", f"no backend {backend!r} in image {lacking[0]}", hint, line=line)
    elif not _known(model, backend) and not (model.images and all(each.has_backend(backend) for each in model.images)):
        if right and not any(image.has_backend(backend) for image in model.images):
            model.report("backend-unknown", f"unknown backend {backend!r}", meant, line=line)
        else:
            message = f"backend {backend!r} is none of Triton's own, and the serving image is not known to have it"
            hint = "name the shard's image in fleet.yaml with its manifest, or give --image"
            model.report("backend-unverified", message, f"{meant} {hint}".strip(), line=line)


def _beside(model: CheckedFolder, backend: str) -> bool:
    """Return whether the library of a backend is in the model's folder or in that of a version."""
    library = f"libtriton_{backend}.so"
    return any((folder / library).is_file() for folder in (model.path, *model.version_paths.values()))


def _check_ensemble(model: CheckedFolder) -> None:
    config, text = model.config, model.text
    if config.backend:
        message = f"an ensemble has no backend, but this one says {config.backend!r}"
        model.report("backend-mismatch", message, 'say platform: "ensemble" and no backend', at=("backend",))
    elif config.platform != ENSEMBLE and text.whole():
        message = f"ensemble_scheduling, but platform is {config.platform!r}" if config.platform else "no platform"
        model.report("backend-mismatch", message, 'say platform: "ensemble"', at=("platform",))
    if not config.HasField("ensemble_scheduling") and text.whole():
        message = "an ensemble without ensemble_scheduling"
        model.report("ensemble-step", message, "add ensemble_scheduling with its steps", at=("platform",))


def _known(model: CheckedFolder, backend: str) -> bool:
    return backend in OFFICIAL or (BACKENDS / backend / "model.py").is_file() or _beside(model, backend)
