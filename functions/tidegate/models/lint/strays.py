"""Files that do not belong into a model repository, or that object storage, or a clone by git, loses."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tidegate.model_layout import FACTS, is_bytecode
from tidegate.models.lint.files import is_machine_path, is_pointer, read_head, real
from tidegate.models.lint.findings import ModelFinding
from tidegate.models.lint.folder import CheckedFolder

BUILT = ".artefacts.json"
"""Beside the models: a build's list of what it wrote, `{"artefacts": {"<model>/<path>": "<sha256>"}}`."""

GIT_TIMEOUT_S = 5.0
IGNORED = "artefact-ignored"
LARGE_BYTES = 512 * 1024 * 1024
LARGE_ARTEFACT_BYTES = 4 * 1024 * 1024 * 1024

_PICKLES = re.compile(r"(?i).*\.(pkl|pickle|p|joblib|dill|cloudpickle|sav)$")
_PICKLE_HEAD = re.compile(rb"\x80[\x04\x05]\x95.{6}\x00\x00|\x80[\x02\x03][c}\](]", re.DOTALL)
_DROPPINGS = re.compile(
    r"(?i)\.DS_Store|\._.*|Thumbs\.db|desktop\.ini|\.ipynb_checkpoints|\.git|\.gitattributes|\.hg|\.svn|\.idea|"
    r"\.vscode|.*~|\#.*\#|\.\#.*|.*\.sw[a-p]|.*\.(bak|orig|rej|tmp|temp|old|part|crdownload)|core\.\d+|nohup\.out|"
    r"\.(mypy|ruff|pytest)_cache|.*\.egg-info|\.env|\.venv|venv|node_modules"
)
_BYTECODE = re.compile(r"(?i)__pycache__|.*\.py[cod]")


def check_strays(model: CheckedFolder) -> None:
    """Check every file of a model's folder, without following links."""
    if model.path.is_symlink():
        model.report("stray-link", "the model's folder is a link", "copy the folder here", file="")
    for path in _walk(model, model.path):
        _check_entry(model, path, path.relative_to(model.path).as_posix())
    for key, line in model.text.lines.entries("parameters"):
        text = model.config.parameters[key].string_value if key in model.config.parameters else ""
        if is_machine_path(text):
            hint = "build it from the model's own folder; $$TRITON_MODEL_DIRECTORY in EXECUTION_ENV_PATH"
            model.report("absolute-path", f"parameter {key!r} is a path of one machine: {text!r}", hint, line=line)


def _walk(model: CheckedFolder, folder: Path) -> Iterator[Path]:
    """Yield everything below a folder, except inside a folder that is reported as a whole."""
    try:
        with os.scandir(folder) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        place = folder.relative_to(model.path).as_posix()
        model.report("unreadable", f"cannot be read: {error.strerror}", "check the permissions", file=place)
        return
    for entry in found:
        path = folder / entry.name
        yield path
        whole = _BYTECODE.fullmatch(entry.name) or _DROPPINGS.fullmatch(entry.name)
        if entry.is_dir(follow_symlinks=False) and not whole:
            yield from _walk(model, path)


def _check_entry(model: CheckedFolder, path: Path, file: str) -> None:
    try:
        status = path.lstat()
    except OSError as error:
        model.report("unreadable", f"cannot be read: {error.strerror}", "check the permissions", file=file)
        return
    if stat.S_ISLNK(status.st_mode):
        _check_link(model, path, file)
    elif _BYTECODE.fullmatch(path.name):
        model.report("stray-bytecode", "compiled Python", "delete it; Tidegate's own servers write none", file=file)
    elif _DROPPINGS.fullmatch(path.name):
        model.report("stray-file", f"{path.name} does not belong to the model", "delete it", file=file)
    elif stat.S_ISDIR(status.st_mode):
        _check_folder(model, path, file)
    elif not stat.S_ISREG(status.st_mode):
        model.report("unreadable", "this is not a regular file", "delete it: reading it may never end", file=file)
    else:
        _check_file(model, path, file, status.st_size)


def _check_link(model: CheckedFolder, path: Path, file: str) -> None:
    kind, message = "stray-link", "a link, which object storage does not have"
    if not path.exists():
        kind, message = "unreadable", f"a link to {str(path.readlink())!r}, which is not there"
    elif not real(path).is_relative_to(real(model.path)):
        message = f"a link out of the model's folder, to {str(path.readlink())!r}"
    model.report(kind, message, "copy the file", file=file)


def _check_folder(model: CheckedFolder, path: Path, file: str) -> None:
    is_version = path.parent == model.path and path.name.isdecimal()
    with contextlib.suppress(OSError):  # the walk reports it
        if not any(path.iterdir()) and not is_version:
            model.report("stray-folder", "an empty folder", "delete it, or put a file in", file=file)


def _check_file(model: CheckedFolder, path: Path, file: str, size: int) -> None:
    artefacts = {model.artefact(version) for version in model.versions}
    large = LARGE_ARTEFACT_BYTES if path in artefacts else LARGE_BYTES
    if is_pointer(path):
        model.report("stray-lfs", "a pointer of Git LFS or git-annex, not the file", "git lfs pull", file=file)
        return
    if size > large:
        message = f"{size / 2**30:.1f} GiB, which every load fetches"
        model.report("stray-large", message, "keep data out of the repository", file=file)
    if _PICKLES.fullmatch(path.name) or _PICKLE_HEAD.match(read_head(path, 16)):
        model.report("stray-pickle", "a pickle runs code when it is loaded", "use ONNX, .npz or JSON", file=file)


def check_ignored(directory: Path, models: Iterable[str]) -> tuple[ModelFinding, ...]:
    """Find files of models that git ignores, and that no build lists; none without git or a work tree, or after
    `GIT_TIMEOUT_S`."""
    paths = sorted(path for model in models for path in _files(directory, model))
    ignored = _ignored(directory, paths)
    if not ignored:
        return ()
    built = _built(directory)
    hint = "correct .gitignore, or commit it with `git add --force`"
    return tuple(
        ModelFinding(path, 0, IGNORED, "git ignores this file, so a clone lacks it", hint, path.partition("/")[0])
        for path in ignored
        if path not in built or built[path] != _digest(directory / path)
    )


def _files(directory: Path, model: str) -> Iterator[str]:
    """Yield what a push would send of a model, by path below the directory."""
    for root, folders, names in os.walk(directory / model):
        folders[:] = [each for each in folders if not is_bytecode(each) and each != ".git"]
        if Path(root) == directory / model and FACTS in folders:
            folders.remove(FACTS)
        for name in names:
            if not is_bytecode(name):
                yield (Path(root) / name).relative_to(directory).as_posix()


def _ignored(directory: Path, paths: Sequence[str]) -> list[str]:
    asked = "\0".join(paths)
    try:
        done = subprocess.run(
            ["git", "check-ignore", "--stdin", "-z"],  # noqa: S607  # whichever git there is
            cwd=directory,
            input=asked.encode(errors="surrogateescape"),
            capture_output=True,
            timeout=GIT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    if done.returncode != 0:
        return []  # 1: none is ignored; 128: not a work tree
    return [os.fsdecode(each) for each in done.stdout.split(b"\0") if each]


def _built(directory: Path) -> dict[str, str]:
    try:
        artefacts = json.loads((directory / BUILT).read_text("utf-8"))["artefacts"].items()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}
    return {path: digest for path, digest in artefacts if isinstance(digest, str)}


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError:
        return ""
