"""Images by what their manifests say."""

from __future__ import annotations

from pathlib import Path

from tidegate.errors import ModelConfigError
from tidegate.rules.images import ImageFile
from tidegate.rules.shape import Report, check_shape
from tidegate.rules.source import Location, read_source
from tidegate.triton.images.image import Image
from tidegate.triton.images.known import built_in, local_image

LOCAL = "local"
"""The name of this machine's own Triton."""


def read_manifest(path: Path) -> Image:
    """Read a manifest.

    Raises:
        ModelConfigError: it cannot be read, or is not a manifest; the message has every reason with its line.
    """
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
    """An image by what a person says: `local`, one of NVIDIA's by its full name, or the path of a manifest.

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
