"""The images that a stage runs: what each is built of, and the tag that follows from it.

A tag names its content: it holds a digest of the Dockerfile, of every file that the build copies, and of the build's
arguments. So the tag follows from the sources alone: the stacks compute it too, and
a changed source is another image under another tag. The image that a Dockerfile builds on is named by its tag alone.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from infra.settings import Settings
from infra.shards import ENVOY

ROOT = Path(__file__).resolve().parents[1]
DIGITS = 12
"""Hexadecimal digits of a tag."""

PLATFORMS = {"x86_64": "linux/amd64", "arm64": "linux/arm64"}
"""What container engines call an architecture."""

_LEFT_OUT = ("__pycache__",)


@dataclass(frozen=True, slots=True)
class Image:
    """One image.

    Attributes:
        name: the last part of its repository's name.
        dockerfile: relative to the root of the project, like `sources`.
        sources: files and folders that the Dockerfile copies.
        arguments: the build's own, by name.
        prefix: what its tag begins with.
        pinned: the tag that the settings name in place of the one that follows from the sources.
        pin: the setting that does so.
        platform: what it is built for.
    """

    name: str
    dockerfile: str
    sources: tuple[str, ...]
    arguments: Mapping[str, str] = field(default_factory=dict)
    prefix: str = ""
    pinned: str | None = None
    pin: str = ""
    platform: str = PLATFORMS["x86_64"]

    @property
    def tag(self) -> str:
        """The tag that a stage runs."""
        return self.pinned or self.built_tag

    @property
    def built_tag(self) -> str:
        """The tag of an image built from the current sources."""
        return f"{self.prefix}{self.digest()[:DIGITS]}"

    def digest(self) -> str:
        """Return the SHA-256 of all sources of the image, in hexadecimal."""
        found = sha256()
        for name, value in sorted(self.arguments.items()):
            found.update(f"{name}={value}\0".encode())
        for path in self.files():
            executable = "x" if os.access(ROOT / path, os.X_OK) else "-"
            found.update(f"{path} {executable} {_digest(ROOT / path)}\0".encode())
        return found.hexdigest()

    def files(self) -> Iterator[str]:
        """Return the files of the build that `.dockerignore` does not exclude, relative to the root, sorted."""
        found = {self.dockerfile}
        for source in self.sources:
            path = ROOT / source
            inside = [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]
            found.update(
                each.relative_to(ROOT).as_posix()
                for each in inside
                if each.suffix != ".pyc" and not set(_LEFT_OUT) & set(each.parts)
            )
        yield from sorted(found)


def images_of(settings: Settings) -> tuple[Image, ...]:
    """Return the images of a stage: Triton's, the shard agent's, which the publish job uses too, and Envoy's where it has any."""
    triton = settings.triton
    found = (
        Image(
            "triton",
            "infra/triton/Dockerfile",
            ("requirements/triton.lock",),
            {"SOURCE": triton.image_source, "TAG": triton.source_tag},
            prefix=f"{triton.source_tag}-",
            pinned=triton.image_tag,
            pin="triton.image_tag",
        ),
        Image(
            "agent",
            "infra/agent/Dockerfile",
            ("functions/tidegate", "requirements/agent.lock"),
            pinned=triton.agent_tag,
            pin="triton.agent_tag",
        ),
    )
    if settings.data_plane != "envoy" or settings.envoy is None:
        return found
    return (
        *found,
        Image(
            ENVOY,
            "infra/envoy/Dockerfile",
            (
                "assets/compiling.py",
                "functions/tidegate",
                "requirements/agent.lock",
                "requirements/compiling.lock",
                "requirements/envoy.lock",
            ),
            # Both architectures have the same sources, and not the same image.
            prefix=f"{settings.architecture.replace('_', '-')}-",
            pinned=settings.envoy.image_tag,
            pin="envoy.image_tag",
            platform=PLATFORMS[settings.architecture],
        ),
    )


def image_tags(settings: Settings) -> Mapping[str, str]:
    """Return the deployed tag of each image, by the image's name."""
    return {image.name: image.tag for image in images_of(settings)}


@functools.cache
def _digest_of(path: Path, _stamp: tuple[int, int]) -> str:
    return sha256(path.read_bytes()).hexdigest()


def _digest(path: Path) -> str:
    stat = path.stat()
    return _digest_of(path, (stat.st_mtime_ns, stat.st_size))
