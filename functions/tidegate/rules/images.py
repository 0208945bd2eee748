"""Manifests of images: small YAML files, made by `tidegate models image describe` or by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, StrictStr

from tidegate.rules.language import Model


class ImageFile(Model):
    """A manifest: what an image of model servers holds."""

    image: StrictStr = Field(description="The image's name, with its tag.")
    base: StrictStr | None = Field(
        None, description="An image of NVIDIA's that it is built on, whose contents it has too."
    )
    python: StrictStr | None = Field(None, description="The version of its Python, for readers.")
    backends: list[StrictStr] = Field([], description="The backends in /opt/tritonserver/backends.")
    modules: list[StrictStr] = Field(
        [], description="Python modules beside the standard library, by their first names."
    )
    distributions: Mapping[StrictStr, StrictStr] = Field({}, description="Installed distributions, for readers.")
    complete: list[Literal["backends", "modules"]] = Field(
        [], description="Which of these lists are all there is; what they lack is then an error, not a warning."
    )


def other_image(shard: str, runs: str, manifest: str, names: str) -> tuple[str, str]:
    """What is wrong where a shard runs an image and its manifest is of another one, and what would be right."""
    message = f"shard {shard!r} runs image {runs!r}, and its manifest {manifest} is of image {names!r}"
    return message, "give both the same name and tag, once the manifest says what that image holds"
