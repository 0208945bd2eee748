"""Files that do not belong into a model repository, or do not survive the way to where the model is served."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from tidegate.triton.checks.files import is_machine_path, is_pointer, read_head, real
from tidegate.triton.checks.folder import ModelFolder, each_version

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


def check_strays(model: ModelFolder) -> None:
    """Check every file of a model's folder, links not followed out of it."""
    if model.path.is_symlink():
        model.report("stray-link", "the model's folder is a link", "copy the folder here", file="")
    for path in _walk(model, model.path):
        _check_entry(model, path, path.relative_to(model.path).as_posix())
    _check_config_paths(model)


def _walk(model: ModelFolder, folder: Path) -> Iterator[Path]:
    """Everything below a folder, but for what is inside a folder that is reported as a whole."""
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


def _check_entry(model: ModelFolder, path: Path, file: str) -> None:
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
        model.report("unreadable", "this is no regular file", "delete it: reading it may never end", file=file)
    else:
        _check_file(model, path, file, status.st_size)


def _check_link(model: ModelFolder, path: Path, file: str) -> None:
    target = real(path)
    if not path.exists():
        model.report(
            "unreadable", f"a link to {str(path.readlink())!r}, which is not there", "copy the file", file=file
        )
    elif not target.is_relative_to(real(model.path)):
        model.report(
            "stray-link", f"a link out of the model's folder, to {str(path.readlink())!r}", "copy the file", file=file
        )
    else:
        model.report("stray-link", "a link, which object storage does not have", "copy the file", file=file)


def _check_folder(model: ModelFolder, path: Path, file: str) -> None:
    is_version = path.parent == model.path and path.name.isdecimal()
    try:
        empty = not any(path.iterdir())
    except OSError:
        # Reported where the folder is walked.
        return
    if empty and not is_version:
        model.report("stray-folder", "an empty folder", "delete it, or put a file in", file=file)


def _check_file(model: ModelFolder, path: Path, file: str, size: int) -> None:
    artefacts = {model.artefact(version) for version, _ in each_version(model)}
    large = LARGE_ARTEFACT_BYTES if path in artefacts else LARGE_BYTES
    if is_pointer(path):
        model.report("stray-lfs", "a pointer of Git LFS or git-annex, not the file", "git lfs pull", file=file)
        return
    if size > large:
        message = f"{size / 2**30:.1f} GiB, which every load fetches"
        model.report("stray-large", message, "keep data out of the repository", file=file)
    if _PICKLES.fullmatch(path.name) or _PICKLE_HEAD.match(read_head(path, 16)):
        model.report("stray-pickle", "a pickle runs code when it is loaded", "use ONNX, .npz or JSON", file=file)


def _check_config_paths(model: ModelFolder) -> None:
    for key, _, line in model.config.lines.entries("parameters"):
        text = model.message.parameters[key].string_value if key in model.message.parameters else ""
        if is_machine_path(text):
            hint = "build it from the model's own folder; $$TRITON_MODEL_DIRECTORY in EXECUTION_ENV_PATH"
            model.report("absolute-path", f"parameter {key!r} is a path of one machine: {text!r}", hint, line=line)
