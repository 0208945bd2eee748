"""Which backend serves a model: known, and not contradicted by `platform` or by the rest of the config."""

from __future__ import annotations

from difflib import get_close_matches

from tidegate.rules.shape import did_you_mean
from tidegate.triton.checks.folder import DEFAULT_FILES, ENSEMBLE, PLATFORMS, ModelFolder
from tidegate.triton.checks.misspelling import misspelt
from tidegate.triton.installation import BACKENDS
from tidegate.triton.model_config import CONFIG

OFFICIAL = frozenset(
    {
        *DEFAULT_FILES,
        "fil",
        "identity",
        "repeat",
        "square",
        "tensorrtllm",
    }
)
"""The backends of https://github.com/triton-inference-server/backend and of NVIDIA's images."""

_USUAL_NAMES = {
    "onnx": "onnxruntime",
    "ort": "onnxruntime",
    "onnx_runtime": "onnxruntime",
    "onnxruntime_onnx": "onnxruntime",
    "torch": "pytorch",
    "libtorch": "pytorch",
    "torchscript": "pytorch",
    "pytorch_libtorch": "pytorch",
    "trt": "tensorrt",
    "tensorrt_plan": "tensorrt",
    "trtllm": "tensorrtllm",
    "tensorrt_llm": "tensorrtllm",
    "tf": "tensorflow",
    "savedmodel": "tensorflow",
    "tensorflow_savedmodel": "tensorflow",
    "tensorflow_graphdef": "tensorflow",
    "py": "python",
    "python3": "python",
    "xgboost": "fil",
    "lightgbm": "fil",
}
"""What people write for a backend, and its name."""


def check_backend(model: ModelFolder) -> None:
    """Check `backend`, `platform` and `runtime`."""
    config, lines = model.message, model.config
    if model.is_ensemble:
        _check_ensemble(model)
        return
    if config.platform and config.platform not in PLATFORMS:
        backend = _USUAL_NAMES.get(config.platform, str(config.platform))
        hint = (
            f'say backend: "{backend}"' if _known(model, backend) else did_you_mean(backend, set(PLATFORMS), "platform")
        )
        message = f"{config.platform!r} is no platform"
        if not config.backend or config.backend in DEFAULT_FILES:
            model.report("backend-unknown", message, hint, line=lines.line("platform"))
        return
    if config.backend and config.platform and PLATFORMS[config.platform] != config.backend:
        message = f"backend {config.backend!r} and platform {config.platform!r} contradict each other"
        model.report("backend-mismatch", message, "say backend alone", line=lines.line("platform"))
        return
    if not model.backend:
        if lines.whole() and model.versions and (lines.present or not _reported(model, "config-missing")):
            hint = f"say backend; known ones: {', '.join(sorted(OFFICIAL - {ENSEMBLE}))}"
            message, file = "neither the config nor the files tell the backend", CONFIG if lines.present else ""
            model.report("backend-missing", message, hint, file=file, line=int(lines.present))
    elif not _beside(model, model.backend):
        _check_served(model, model.backend, lines.line("backend"))


def _check_served(model: ModelFolder, backend: str, line: int) -> None:
    """Report a backend that the images which serve the model lack, or are not known to have."""
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


def _beside(model: ModelFolder, backend: str) -> bool:
    """Whether the library of a backend lies beside the model, or it is the server's own."""
    library = f"libtriton_{backend}.so"
    folders = [model.path, *(model.version_path(version) for version in model.versions)]
    return any((folder / library).is_file() for folder in folders)


def _check_ensemble(model: ModelFolder) -> None:
    config, lines = model.message, model.config
    if config.backend:
        hint = 'say platform: "ensemble" and no backend'
        message = f"an ensemble has no backend, but this one says {config.backend!r}"
        model.report("backend-mismatch", message, hint, line=lines.line("backend"))
    elif config.platform != ENSEMBLE and lines.whole():
        message = f"ensemble_scheduling, but platform is {config.platform!r}" if config.platform else "no platform"
        model.report("backend-mismatch", message, 'say platform: "ensemble"', line=lines.line("platform"))
    if not config.HasField("ensemble_scheduling") and lines.whole():
        message = "an ensemble without ensemble_scheduling"
        model.report("ensemble-step", message, "add ensemble_scheduling with its steps", line=lines.line("platform"))


def _known(model: ModelFolder, backend: str) -> bool:
    """Whether a backend is official, ships with Tidegate, or has its library beside the model."""
    return backend in OFFICIAL or (BACKENDS / backend / "model.py").is_file() or _beside(model, backend)


def _reported(model: ModelFolder, kind: str) -> bool:
    return any(finding.kind == kind for finding in model.report.findings)
