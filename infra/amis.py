"""The images of the shards' instances: which a stage's settings pin, which AWS recommends, and moving the one to the other."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate.errors import SettingsError

from infra.reading import SETTINGS_FOLDER
from infra.settings import Settings
from infra.shards import Shard

PARAMETERS: Mapping[str, str] = {
    "cpu": "/aws/service/ecs/optimized-ami/amazon-linux-2023/recommended",
    "gpu": "/aws/service/ecs/optimized-ami/amazon-linux-2023/gpu/recommended",
}
"""The parameter in which AWS publishes the newest image for ECS, by kind of instance."""

_LINE = re.compile(r"^ami:[ \t]*(\{[^}\n]*\})?[ \t]*(#.*)?$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Image:
    """An image: its id in this region, and its name, which contains the release."""

    id: str
    name: str


def pinned(settings: Settings, kind: str) -> str | None:
    """Return the pinned image of a kind of instances (`gpu`, `cpu`)."""
    return settings.ami.gpu if kind == "gpu" else settings.ami.cpu


def recommended(shards: Iterable[Shard], ssm: Any) -> dict[str, Image]:
    """Return the newest image of each kind in a fleet.

    Args:
        shards: the fleet.
        ssm: a boto3 client.
    """
    found = {}
    for kind in sorted({"gpu" if shard.gpus else "cpu" for shard in shards}):
        image_id, name = (
            ssm.get_parameter(Name=f"{PARAMETERS[kind]}/{field}")["Parameter"]["Value"]
            for field in ("image_id", "image_name")
        )
        found[kind] = Image(image_id, name)
    return found


def pin(stage: str, settings: Settings, images: Mapping[str, str], folder: Path = SETTINGS_FOLDER) -> Path:
    """Write images into a stage's settings without touching other lines, and return the file.

    Raises:
        SettingsError: `ami` is written there over several lines.
    """
    file = folder / f"{stage}.yaml"
    text = file.read_text(encoding="utf-8")
    ids = {kind: pinned(settings, kind) for kind in PARAMETERS} | dict(images)
    line = "ami: {" + ", ".join(f"{kind}: {each}" for kind, each in sorted(ids.items()) if each) + "}"
    if re.search(r"^ami:", text, re.MULTILINE) is None:
        text = f"{text.rstrip()}\n{line}\n"
    else:
        match = _LINE.search(text)
        if match is None or match[1] is None:
            raise SettingsError(f"{file.name}: ami is written over several lines; replace it by: {line}")
        text = text[: match.start()] + " ".join(filter(None, (line, match[2]))) + text[match.end() :]
    file.write_text(text, encoding="utf-8")
    return file
