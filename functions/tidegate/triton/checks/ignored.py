"""Files of a model that git ignores: whoever clones the repository lacks them, and a clean takes them away."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tidegate.ports.model_units import FACTS
from tidegate.triton.checks.findings import ModelFinding

BUILT = ".artefacts.json"
"""Beside the models: a build's list of what it wrote, `{"artefacts": {"<model>/<path>": "<sha256>"}}`."""

TIMEOUT_S = 5.0
KIND = "artefact-ignored"


def check_ignored(directory: Path, models: Iterable[str]) -> tuple[ModelFinding, ...]:
    """Find files of models that git ignores, and that no build says it can make again.

    Empty where the directory is in no work tree of git, where there is no git, or where that takes over `TIMEOUT_S`.
    """
    paths = sorted(path for model in models for path in _files(directory, model))
    ignored = _ignored(directory, paths)
    if not ignored:
        return ()
    built = _built(directory)
    hint = "correct .gitignore, or commit it with `git add --force`"
    return tuple(
        ModelFinding(path, 0, KIND, "git ignores this file, so a clone lacks it", hint, path.partition("/")[0])
        for path in ignored
        if path not in built or built[path] != _digest(directory / path)
    )


def _files(directory: Path, model: str) -> Iterator[str]:
    """What a push would send of a model, by path below the directory. Links are not followed."""
    for root, folders, names in os.walk(directory / model):
        folders[:] = [each for each in folders if each not in ("__pycache__", ".git")]
        if Path(root) == directory / model and FACTS in folders:
            folders.remove(FACTS)
        for name in names:
            if not name.endswith(".pyc"):
                yield (Path(root) / name).relative_to(directory).as_posix()


def _ignored(directory: Path, paths: Sequence[str]) -> list[str]:
    asked = "\0".join(paths)
    try:
        # git's own exit code says whether any is ignored; another one that it cannot tell.
        done = subprocess.run(
            ["git", "check-ignore", "--stdin", "-z"],  # noqa: S607  # whichever git there is
            cwd=directory,
            input=asked.encode(errors="surrogateescape"),
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    if done.returncode != 0:
        return []
    return [os.fsdecode(each) for each in done.stdout.split(b"\0") if each]


def _built(directory: Path) -> dict[str, str]:
    try:
        artefacts = json.loads((directory / BUILT).read_text("utf-8"))["artefacts"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return {}
    return (
        {path: digest for path, digest in artefacts.items() if isinstance(digest, str)}
        if isinstance(artefacts, dict)
        else {}
    )


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError:
        return ""
