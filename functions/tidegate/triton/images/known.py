"""What is known of images without a manifest: NVIDIA's own, and this machine's Triton.

Of NVIDIA's images the backends are known, as far as public sources say, and hardly any Python module:

- the overview of https://catalog.ngc.nvidia.com/orgs/nvidia/containers/tritonserver, quoted in
  https://github.com/triton-inference-server/server/issues/6806 (`py3`, `pyt-python-py3`, `tf2-python-py3`);
- https://github.com/triton-inference-server/server/issues/7346 (`trtllm-python-py3` has TensorRT-LLM and Python alone, and
  `py3` has neither that nor vLLM);
- https://github.com/triton-inference-server/vllm_backend, "Installing the vLLM Backend" (`vllm-python-py3`);
- https://github.com/triton-inference-server/server/blob/main/docs/introduction/compatibility.md (which variants have PyTorch,
  TensorRT-LLM and vLLM as Python packages).
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

from tidegate.triton.images.describe import modules_in
from tidegate.triton.images.image import Image
from tidegate.triton.installation import BACKENDS

_NVIDIA = re.compile(r"nvcr\.io/nvidia/tritonserver:(\d\d\.\d\d)-(?P<variant>[a-z0-9-]+)")
_LANGUAGE_MODELS = frozenset({"vllm", "tensorrtllm"})


@dataclass(frozen=True, slots=True)
class _Variant:
    backends: frozenset[str]
    modules: frozenset[str] = frozenset()
    lacks: frozenset[str] = frozenset()
    complete: bool = True


_VARIANTS = {
    # Others, such as dali and fil, come and go with the release.
    "py3": _Variant(
        frozenset({"tensorrt", "onnxruntime", "pytorch", "openvino", "python"}), lacks=_LANGUAGE_MODELS, complete=False
    ),
    "pyt-python-py3": _Variant(frozenset({"pytorch", "python"})),
    "tf2-python-py3": _Variant(frozenset({"tensorflow", "python"})),
    "trtllm-python-py3": _Variant(frozenset({"tensorrtllm", "python"}), frozenset({"torch", "tensorrt_llm"})),
    "vllm-python-py3": _Variant(frozenset({"vllm", "python"}), frozenset({"vllm"})),
}


def built_in(name: str) -> Image | None:
    """What is known of one of NVIDIA's images by its full name; None for every other one."""
    match = _NVIDIA.fullmatch(name)
    variant = _VARIANTS.get(match["variant"]) if match is not None else None
    if variant is None:
        return None
    return Image(name, variant.backends, variant.modules, variant.lacks, all_backends=variant.complete)


def local_image() -> Image:
    """This machine's Triton: the backends that ship with Tidegate, and the packages of this environment."""
    here = Path.cwd().resolve()
    folders = [Path(entry) for entry in sys.path if entry and Path(entry).resolve() != here]
    shipped = (
        {entry.name for entry in BACKENDS.iterdir() if (entry / "model.py").is_file()} if BACKENDS.is_dir() else set()
    )
    modules = frozenset(modules_in(folders))
    return Image("this machine's Triton", frozenset({"python", *shipped}), modules, all_backends=True, all_modules=True)
