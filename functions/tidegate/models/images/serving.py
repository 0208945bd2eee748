"""The images that serve models, by the shards in a rules directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tidegate.errors import ModelConfigError
from tidegate.language.fleet import other_image
from tidegate.language.program import World
from tidegate.models.images.image import Image, built_in, read_manifest
from tidegate.models.lint.folder import Repository


def shard_images(world: World, rules: Path) -> Mapping[str, Image]:
    """Return the image of each shard that names one. An unknown one without a manifest has its name alone.

    Raises:
        ModelConfigError: a manifest is malformed, or is of another image than its shard runs.
    """
    found: dict[str, Image] = {}
    for shard, (name, manifest) in world.images.items():
        found[shard] = read_manifest(rules / manifest) if manifest is not None else built_in(name) or Image(name)
        if manifest is not None and found[shard].name != name:
            raise ModelConfigError("{}; {}".format(*other_image(shard, name, manifest, found[shard].name)))
    return found


def images_of_models(world: World, rules: Path, repository: Path) -> Mapping[str, tuple[Image, ...]]:
    """Return the images of the shards that serve each model, and what it calls. A shard without an image has an unknown one.

    Raises:
        ModelConfigError: as `shard_images`.
    """
    images = shard_images(world, rules)
    unknown, models = Image("of a shard that fleet.yaml gives no image"), Repository(repository)
    found: dict[str, dict[Image, None]] = {}
    for target, shards in world.fleet.models.items():
        for model in models.closure([target]):
            found.setdefault(model, {}).update(dict.fromkeys(images.get(shard, unknown) for shard in shards))
    return {model: tuple(each) for model, each in found.items()}
