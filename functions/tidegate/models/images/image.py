"""The content of images of model servers: by manifests, of NVIDIA's own, and of this machine's Triton.

Public sources give the backends of NVIDIA's images, and hardly any Python modules:

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
from dataclasses import dataclass, replace
from pathlib import Path

from tidegate.errors import ModelConfigError
from tidegate.models.images.describe import modules_in
from tidegate.triton.installation import BACKENDS

ALWAYS_THERE = frozenset({"numpy"})
"""Modules that Triton's Python backend itself needs."""

LOCAL = "local"
"""The name of this machine's own Triton."""

_NVIDIA = re.compile(r"nvcr\.io/nvidia/tritonserver:(\d\d\.\d\d)-(?P<variant>[a-z0-9-]+)")


@dataclass(frozen=True, slots=True)
class Image:
    """An image of model servers.

    Attributes:
        modules: the Python modules beside the standard library, by their first names.
        lacks: backends that it is known not to have.
        all_backends: whether `backends` is complete.
        all_modules: whether `modules` is complete.
    """

    name: str
    backends: frozenset[str] = frozenset()
    modules: frozenset[str] = frozenset()
    lacks: frozenset[str] = frozenset()
    all_backends: bool = False
    all_modules: bool = False

    def has_backend(self, name: str) -> bool | None:
        """Return whether it has a backend; None if that is unknown."""
        if name in self.backends:
            return True
        return False if self.all_backends or name in self.lacks else None

    def has_module(self, name: str) -> bool | None:
        """Return whether it has a Python module, by its first name; None if that is unknown."""
        if name in self.modules or name in ALWAYS_THERE:
            return True
        return False if self.all_modules else None


_VARIANTS = {
    # It also has others, such as dali and fil, which vary with the release.
    "py3": Image(
        "py3",
        frozenset({"tensorrt", "onnxruntime", "pytorch", "openvino", "python"}),
        lacks=frozenset({"vllm", "tensorrtllm"}),
    ),
    **{
        name: Image(name, frozenset({backend, "python"}), frozenset(modules), all_backends=True)
        for name, backend, modules in (
            ("pyt-python-py3", "pytorch", ()),
            ("tf2-python-py3", "tensorflow", ()),
            ("trtllm-python-py3", "tensorrtllm", ("torch", "tensorrt_llm")),
            ("vllm-python-py3", "vllm", ("vllm",)),
        )
    },
}


def built_in(name: str) -> Image | None:
    """Return one of NVIDIA's images by its full name; None for any other."""
    match = _NVIDIA.fullmatch(name)
    variant = _VARIANTS.get(match["variant"]) if match is not None else None
    return None if variant is None else replace(variant, name=name)


def local_image() -> Image:
    """Return this machine's Triton, with the backends that ship with Tidegate, and the packages of this environment."""
    here = Path.cwd().resolve()
    folders = [Path(entry) for entry in sys.path if entry and Path(entry).resolve() != here]
    backends = frozenset({"python", *(path.parent.name for path in BACKENDS.glob("*/model.py"))})
    modules = frozenset(modules_in(folders))
    return Image("this machine's Triton", backends, modules, all_backends=True, all_modules=True)


def read_manifest(path: Path) -> Image:
    """Read a manifest.

    Raises:
        ModelConfigError: it cannot be read, or is not a manifest; the message has every reason with its line.
    """
    # The language's shapes need pydantic, whose import takes 0.1 s; few shards have a manifest.
    from tidegate.language.fleet import ImageFile
    from tidegate.language.shape import Report, check_shape
    from tidegate.language.source import Location, read_source

    source = read_source(path, str(path))
    problems = [str(finding) for finding in source.findings()]

    def add(at: Location, message: str, hint: str) -> None:
        problems.append(f"{path}:{source.line(at)}: {message}" + (f" ({hint})" if hint else ""))

    file = check_shape(ImageFile, source.data, Report(source, add)) if source.data is not None else None
    base = built_in(file.base) if file is not None and file.base is not None else None
    if file is not None and file.base is not None and base is None:
        add(("base",), f"nothing is known of the image {file.base!r}", "name one of NVIDIA's, or list what it holds")
    if problems or file is None:
        raise ModelConfigError("\n".join(problems))
    own = Image(file.image) if base is None else base
    return Image(
        file.image,
        own.backends.union(file.backends),
        own.modules.union(file.modules),
        own.lacks.difference(file.backends),
        all_backends="backends" in file.complete or own.all_backends,
        all_modules="modules" in file.complete,
    )


def find_image(name: str) -> Image:
    """Return an image by `local`, the full name of one of NVIDIA's, or the path of a manifest.

    Raises:
        ModelConfigError: it is none of these, or the manifest is malformed.
    """
    if name == LOCAL:
        return local_image()
    if (known := built_in(name)) is not None:
        return known
    if Path(name).is_file():
        return read_manifest(Path(name))
    raise ModelConfigError(
        f"{name}: neither a manifest nor an image that is known: name a file that `tidegate models image describe` made, "
        f"one of NVIDIA's images such as nvcr.io/nvidia/tritonserver:24.10-py3, or {LOCAL}"
    )
