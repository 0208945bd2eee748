"""A model's folder taken apart into the units that a push sends: the config, each version, and the golden requests."""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tidegate.errors import ConflictError, ImmutableError, ModelConfigError
from tidegate.ports.model_store import ModelFile

SAMPLES = "samples"
FACTS = "facts"
"""The folder of a model's facts, which change while the model never does, and so are in a table and not pushed."""

KEEP = ".keep"
"""An empty file of this name keeps a folder that has no other file, since a store of objects has no folders."""

MAX_PATH_BYTES = 512
"""Longest path of a file below its model's folder, in bytes; an S3 key has 1024 for everything."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(r"[1-9][0-9]{0,17}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_OUTSIDE = re.compile(r"[\x00\\]|^[A-Za-z]:")


@dataclass(frozen=True, slots=True)
class UnitFile:
    """A file to push: what the store will say of it, and where its bytes are (None: it keeps a folder, and is empty)."""

    file: ModelFile
    source: Path | None

    def read(self, model: str) -> bytes:
        """The bytes.

        Raises:
            ModelConfigError: they are not those that `file` was made from, or cannot be read.
        """
        try:
            data = b"" if self.source is None else self.source.read_bytes()
        except OSError as error:
            raise _unreadable(f"{model}/{self.file.path}", error) from error
        if hashlib.sha256(data).hexdigest() != self.file.sha256:
            raise changed_meanwhile(model, self.file.path)
        return data


@dataclass(frozen=True, slots=True)
class ModelUnits:
    """A model's folder: `units` holds each version's files, and those of no version under None, all sorted by path.

    `samples` are the golden requests by file name; None where the folder has no `samples/`, which is not the same as
    none in it.
    """

    model: str
    units: Mapping[int | None, tuple[UnitFile, ...]]
    samples: Mapping[str, UnitFile] | None = None

    @property
    def versions(self) -> tuple[int, ...]:
        """The versions, ascending."""
        return tuple(sorted(version for version in self.units if version is not None))


def read_units(model: str, folder: Path) -> ModelUnits:
    """Take a model's folder apart. Every file is read once, for its checksum.

    Left out are `__pycache__`, `*.pyc`, `facts/`, and what `samples/` holds beside `*.json`. Links to files and folders
    inside the model's folder are followed; a folder that would be empty gets a `.keep`.

    Raises:
        ModelConfigError: the folder cannot be pushed as it stands; the message names the file.
    """
    check_name(model)
    if not folder.is_dir():
        raise ModelConfigError(f"model {model!r}: {folder} is no folder")
    walk = _Walk(model, folder.resolve())
    units: dict[int | None, list[UnitFile]] = {None: []}
    samples: dict[str, UnitFile] | None = None
    for name, path in walk.entries(folder, ""):
        if name == FACTS and path.is_dir():
            continue
        if name == SAMPLES and path.is_dir():
            samples = dict(walk.samples(path))
            continue
        version = version_of(name) if path.is_dir() else None
        units.setdefault(version, []).extend(walk.files(name, path))
    if len(units) == 1:
        raise ModelConfigError(f"model {model!r} has no version; put it into a folder named 1")
    ordered = {
        unit: tuple(sorted(units[unit], key=lambda each: each.file.path))
        for unit in sorted(units, key=lambda unit: unit or 0)
    }
    return ModelUnits(model, ordered, samples)


def version_of(folder: str) -> int | None:
    """The version that a folder's name stands for; None where Triton takes it for none."""
    return int(folder) if _VERSION.fullmatch(folder) else None


def is_below(path: str) -> bool:
    """Whether a path, such as one that a store holds, names a file below the folder that it is relative to, on any system."""
    return not {"", ".", ".."} & set(path.split("/")) and _OUTSIDE.search(path) is None


def check_name(model: str) -> None:
    """Refuse a name that no model of a repository can have.

    Raises:
        ModelConfigError: it is such a name.
    """
    if not _NAME.fullmatch(model):
        raise ModelConfigError(
            f"{model!r} is no name for a model: letters, digits, '.', '_' and '-' (at most 128), no '.' or '-' first"
        )


def check_unchanged(
    model: str, version: int | None, pushed: tuple[ModelFile, ...], folder: tuple[ModelFile, ...]
) -> None:
    """Refuse other files for a unit that never changes.

    Raises:
        ImmutableError: `folder` differs from `pushed`; it names every file that does, and how.
    """
    before = {file.path: file for file in pushed}
    after = {file.path: file for file in folder}
    kinds = {
        "differs": [path for path in after if path in before and after[path] != before[path]],
        "is missing": [path for path in before if path not in after],
        "is new": [path for path in after if path not in before],
    }
    paths = tuple(sorted(path for named in kinds.values() for path in named))
    if not paths:
        return
    how = {path: kind for kind, named in kinds.items() for path in named}
    advice = (
        f"make another model of it with `tidegate models new NAME --from {model}`"
        if version is None
        else f"make a new version of it with `tidegate models version {model}`"
    )
    listed = ", ".join(f"{path} {how[path]}" for path in paths[:10]) + (", …" if len(paths) > 10 else "")
    raise ImmutableError(
        model,
        paths,
        f"{unit_name(model, version)} was live and never changes, but {listed}; {advice}, or restore it",
    )


def unit_name(model: str, version: int | None) -> str:
    """A unit as messages name it."""
    return f"model {model!r}: " + ("its config" if version is None else f"version {version}")


def lost_unit(model: str, version: int | None) -> str:
    """What to say of a unit that is not there."""
    return f"{model}/{'config.pbtxt' if version is None else version} is gone"


def replaced_meanwhile(model: str, version: int | None) -> ConflictError:
    """The error for a draft that is not any more what a publish has loaded."""
    return ConflictError(
        f"{unit_name(model, version)} was replaced or withdrawn while it was being published; publish again"
    )


def in_use(model: str, version: int | None) -> ConflictError:
    """The error for a draft that is to be replaced or withdrawn and is needed by somebody."""
    return ConflictError(
        f"{unit_name(model, version)} is being published by somebody else; wait for that to end (`tidegate status` says "
        "who), then try again"
    )


def not_a_draft(model: str, version: int | None) -> ImmutableError:
    """The error for a unit that is to be withdrawn and never changes."""
    return ImmutableError(
        model,
        (),
        f"{unit_name(model, version)} was live, so that it stays: a rollback may need it. Take it out of the rules "
        "instead; what no revision needs is unloaded by itself",
    )


def changed_meanwhile(model: str, path: str) -> ModelConfigError:
    """The error for a file that another process wrote to during the push."""
    return ModelConfigError(f"{model}/{path} changed while it was being pushed; push again once it is written")


@dataclass(slots=True)
class _Walk:
    """Walks one model's folder; `root` is the folder with links resolved."""

    model: str
    root: Path
    above: list[Path] = field(default_factory=list)

    def entries(self, folder: Path, prefix: str) -> Iterator[tuple[str, Path]]:
        """What a folder holds, sorted by name, without what is never pushed."""
        try:
            paths = sorted(folder.iterdir())
        except OSError as error:
            raise _unreadable(f"{self.model}/{prefix}", error) from error
        for path in paths:
            if path.name != "__pycache__" and path.suffix != ".pyc":
                self._check(prefix + path.name, path)
                yield path.name, path

    def files(self, relative: str, path: Path) -> Iterator[UnitFile]:
        """The file, or all files below the folder, at `path`."""
        if not path.is_dir():
            yield self._file(relative, path)
            return
        real = path.resolve()
        if real in self.above or real == self.root:
            raise ModelConfigError(f"{self.model}/{relative} is a link to a folder that holds it; remove it")
        self.above.append(real)
        is_empty = True
        for name, entry in self.entries(path, f"{relative}/"):
            for file in self.files(f"{relative}/{name}", entry):
                is_empty = False
                yield file
        self.above.pop()
        if is_empty:
            yield UnitFile(ModelFile(f"{relative}/{KEEP}", hashlib.sha256().hexdigest(), 0), None)

    def samples(self, path: Path) -> Iterator[tuple[str, UnitFile]]:
        """The golden requests of the model."""
        for name, entry in self.entries(path, f"{SAMPLES}/"):
            if name.endswith(".json"):
                yield name, self._file(f"{SAMPLES}/{name}", entry)

    def _check(self, relative: str, path: Path) -> None:
        place = f"{self.model}/{relative}"
        try:
            encoded = relative.encode()
        except UnicodeEncodeError:
            raise ModelConfigError(f"{place!r}: the name is no UTF-8; rename it") from None
        problem = (
            "holds a control character"
            if _CONTROL.search(relative)
            else f"is over {MAX_PATH_BYTES} bytes"
            if len(encoded) > MAX_PATH_BYTES
            else "is a path of another system"
            if not is_below(relative)
            else ""
        )
        if problem:
            raise ModelConfigError(f"{place!r}: the name {problem}; rename it")
        try:
            # A link to itself exists no more than one to nothing, and cannot be resolved.
            target = path.resolve() if path.exists() else None
        except OSError as error:
            raise _unreadable(place, error) from error
        if target is None:
            raise ModelConfigError(f"{place} is a link to nothing; remove it, or put the file there")
        if not target.is_relative_to(self.root):
            raise ModelConfigError(
                f"{place} is a link out of the model's folder, which Triton could not follow; put a copy there"
            )

    def _file(self, relative: str, path: Path) -> UnitFile:
        place = f"{self.model}/{relative}"
        try:
            if not stat.S_ISREG(path.stat().st_mode):
                raise ModelConfigError(f"{place} is neither a file nor a folder; remove it")
            with path.open("rb") as opened:
                digest = hashlib.file_digest(opened, "sha256").hexdigest()
                size = opened.tell()
        except OSError as error:
            raise _unreadable(place, error) from error
        return UnitFile(ModelFile(relative, digest, size), path)


def _unreadable(place: str, error: OSError) -> ModelConfigError:
    return ModelConfigError(f"{place} cannot be read: {error.strerror}; check the owner and the permissions")
