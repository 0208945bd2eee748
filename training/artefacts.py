"""The output of a build: artefacts with their digests, and a stamp that shows whether they are up to date."""

from __future__ import annotations

import contextlib
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
"""The folder of the committed step code; training imports the code that serves."""

STEP_CODE = (
    "order_features/1/features.py",
    "query_grams/1/grams.py",
    "query_tokenizer/1/wordpiece.py",
    "title_generator/1/playlist.py",
)
STAMP = ".artefacts.json"

_PACKAGES = ("numpy", "onnx", "onnxruntime", "scikit-learn", "skl2onnx")


@dataclass(slots=True)
class Artefacts:
    """Writes artefacts under `root` (a Triton model repository) and remembers their digests.

    A file in an artefact's place that no build wrote is somebody's work: it is kept, unless all is to be `forced`.
    """

    root: Path
    digests: dict[str, str] = field(default_factory=dict)
    forced: bool = False

    def write(self, path: str, data: bytes) -> None:
        """Write one artefact whole, so that whoever loads it meanwhile sees the old or the new one, never a half."""
        target = self.root / path
        self.digests[path] = hashlib.sha256(data).hexdigest()
        if not self.forced and _digest(target) not in (None, self.digests[path], built_before(self.root).get(path)):
            print(f"  {path}  kept: it is not what was built; --force builds it again", flush=True)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        temporary.write_bytes(data)
        temporary.replace(target)
        print(f"  {path}  {len(data):,} bytes  sha256 {self.digests[path][:12]}", flush=True)


def step_code(path: str) -> ModuleType:
    """Import one of `STEP_CODE`, by its path under `STEPS`, and leave no bytecode in the model repository."""
    specification = importlib.util.spec_from_file_location(Path(path).stem, STEPS / path)
    if specification is None or specification.loader is None:
        raise ImportError(f"{STEPS / path} is not a Python file")
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
    before = built_before(artefacts.root)
    _remove(artefacts.root, {path: before[path] for path in before.keys() - artefacts.digests.keys()})


def remove_built(root: Path) -> tuple[str, ...]:
    """Delete what builds wrote under `root`, with the folders that are empty then; the artefacts that were changed since,
    which stay."""
    kept = _remove(root, built_before(root))
    (root / STAMP).unlink(missing_ok=True)
    return kept


def changed_artefacts(root: Path) -> tuple[str, ...]:
    """The artefacts under `root` that are not what was built."""
    return tuple(path for path, digest in built_before(root).items() if _digest(root / path) not in (None, digest))


def built_before(root: Path) -> dict[str, str]:
    """The digests of what the last build wrote under `root`, by path; none where that is not known."""
    try:
        artefacts = json.loads((root / STAMP).read_text("utf-8"))["artefacts"]
        return {
            path: str(digest)
            for path, digest in artefacts.items()
            if (root / path).resolve().is_relative_to(root.resolve())
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _remove(root: Path, built: Mapping[str, str]) -> tuple[str, ...]:
    kept = []
    for path, digest in built.items():
        found = _digest(root / path)
        if found == digest:
            (root / path).unlink()
            with contextlib.suppress(OSError):
                (root / path).parent.rmdir()
        elif found is not None:
            kept.append(path)
    return tuple(kept)


def _digest(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def stale_because(root: Path) -> str | None:
    """Why the artefacts under `root` must be built, or None where all are there and up to date. One that was changed since
    it was built is somebody's work, and no reason."""
    try:
        stamp = json.loads((root / STAMP).read_text("utf-8"))
    except FileNotFoundError:
        return "they have not been built yet"
    except ValueError:
        return f"{STAMP} is not readable"
    if stamp.get("inputs") != inputs_digest():
        return "training code, step code, locked wheels or packages have changed"
    for path in stamp["artefacts"]:
        if not (root / path).is_file():
            return f"{path} is missing"
    return None
