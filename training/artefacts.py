"""What a build writes: artefacts with their digests, and a stamp that tells whether they are up to date."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

STEPS = Path(__file__).parents[1] / "triton_models"
"""Where the committed step code stands; training imports what serving runs."""

STEP_CODE = ("order_features/1/features.py", "query_grams/1/grams.py", "query_tokenizer/1/wordpiece.py")
STAMP = ".artefacts.json"

_PACKAGES = ("numpy", "onnx", "onnxruntime", "scikit-learn", "skl2onnx")


@dataclass(slots=True)
class Artefacts:
    """Writes artefacts under `root` (a Triton model repository) and remembers their digests."""

    root: Path
    digests: dict[str, str] = field(default_factory=dict)

    def write(self, path: str, data: bytes) -> None:
        """Write one artefact whole, so that whoever loads it meanwhile sees the old or the new one, never a half."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        temporary.write_bytes(data)
        temporary.replace(target)
        self.digests[path] = hashlib.sha256(data).hexdigest()
        print(f"  {path}  {len(data):,} bytes  sha256 {self.digests[path][:12]}", flush=True)


def step_code(path: str) -> ModuleType:
    """Import one of `STEP_CODE`, by its path under `STEPS`, and leave no bytecode in the model repository."""
    specification = importlib.util.spec_from_file_location(Path(path).stem, STEPS / path)
    if specification is None or specification.loader is None:
        raise ImportError(f"{STEPS / path} is no Python file")
    module = importlib.util.module_from_spec(specification)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        specification.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


def inputs_digest() -> str:
    """The digest of everything that artefacts are made from: training and step code, locked wheels, packages."""
    here = Path(__file__).parent
    digest = hashlib.sha256()
    for path in [*sorted(here.glob("*.py")), here / "wheels.lock", *(STEPS / path for path in STEP_CODE)]:
        digest.update(path.read_bytes() + b"\0")
    for package in _PACKAGES:
        digest.update(f"{package} {importlib.metadata.version(package)}\0".encode())
    return digest.hexdigest()


def write_stamp(artefacts: Artefacts, metrics: Mapping[str, Any]) -> None:
    """Note in the repository what its artefacts were made from, their digests, and the metrics measured on them."""
    stamp = {"inputs": inputs_digest(), "artefacts": artefacts.digests, "metrics": metrics}
    (artefacts.root / STAMP).write_text(json.dumps(stamp, indent=2) + "\n", "utf-8")


def remove_outdated(artefacts: Artefacts) -> None:
    """Delete what the build before wrote and this one does not: nothing reads it, and it would be pushed."""
    try:
        before = json.loads((artefacts.root / STAMP).read_text("utf-8"))["artefacts"]
    except (OSError, ValueError, KeyError):
        return
    for path in before.keys() - artefacts.digests.keys():
        (artefacts.root / path).unlink(missing_ok=True)


def stale_because(root: Path) -> str | None:
    """Why the artefacts under `root` must be built, or None where all are there, whole and up to date."""
    try:
        stamp = json.loads((root / STAMP).read_text("utf-8"))
    except FileNotFoundError:
        return "they have not been built yet"
    except ValueError:
        return f"{STAMP} is not readable"
    if stamp.get("inputs") != inputs_digest():
        return "training code, step code, locked wheels or packages have changed"
    for path, digest in stamp["artefacts"].items():
        if not (root / path).is_file():
            return f"{path} is missing"
        if hashlib.sha256((root / path).read_bytes()).hexdigest() != digest:
            return f"{path} is not what was built"
    return None
