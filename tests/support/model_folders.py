"""Model folders that a test writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def write_model(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write a model's files by path; a path that ends in a slash is an empty folder."""
    for path, content in files.items():
        target = folder / path
        if path.endswith("/"):
            target.mkdir(parents=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    return folder
