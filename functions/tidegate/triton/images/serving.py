"""Which images serve a model, by what a rules directory says of its shards."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tidegate.errors import ModelConfigError
from tidegate.rules.images import other_image
from tidegate.rules.program import World
from tidegate.triton.checks.folder import Repository
from tidegate.triton.images.image import Image
from tidegate.triton.images.known import built_in
from tidegate.triton.images.manifest import read_manifest


def shard_images(world: World, rules: Path) -> Mapping[str, Image]:
    """The image of each shard that says one; one without a manifest, of which nothing is known, by its name alone.

    Raises:
        ModelConfigError: a manifest is malformed, or is of another image than its shard runs.
    """
    return {shard: _image(shard, name, manifest, rules) for shard, (name, manifest) in world.images.items()}


def images_of_models(world: World, rules: Path, repository: Path) -> Mapping[str, tuple[Image, ...]]:
    """The images that serve each model, with what it calls: those of its shards. A shard that does not say its image
    counts as one of which nothing is known.

    Raises:
        ModelConfigError: a manifest is malformed, or is of another image than its shard runs.
    """
    images = shard_images(world, rules)
    unknown, models = Image("of a shard that fleet.yaml gives no image"), Repository(repository)
    found: dict[str, dict[Image, None]] = {}
    for target, shards in world.models.items():
        for model in models.closure([target]):
            found.setdefault(model, {}).update(dict.fromkeys(images.get(shard, unknown) for shard in shards))
    return {model: tuple(each) for model, each in found.items()}


def _image(shard: str, name: str, manifest: str | None, rules: Path) -> Image:
    if manifest is None:
        return built_in(name) or Image(name)
    image = read_manifest(rules / manifest)
    if image.name != name:
        raise ModelConfigError("{}; {}".format(*other_image(shard, name, manifest, image.name)))
    return image
