"""Reads a model's folder as the units that a push sends: the config, each version, and the golden requests."""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tidegate.errors import ConflictError, ImmutableError, ModelConfigError
from tidegate.model_layout import CONFIG, FACTS, KEEP, SAMPLES, is_bytecode, version_of

MAX_PATH_BYTES = 512
"""Longest path of a file below its model's folder, in bytes; an S3 key has 1024 for everything."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_OUTSIDE = re.compile(r"[\x00\\]|^[A-Za-z]:")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a pushed model: `path` is relative to the model's folder, `sha256` hexadecimal."""

    path: str
    sha256: str
    size_bytes: int


Unit = tuple[str, int | None]
"""The unit of a push, a replacement or a withdrawal: a version of a model, or (None) its config and all other files."""


@dataclass(frozen=True, slots=True)
class UnitFile:
    """A file to push, and its path; None for the empty file that keeps a folder."""

    file: ModelFile
    source: Path | None

    def read(self, model: str) -> bytes:
        """Return the content. Raises `ModelConfigError`: it has changed, or cannot be read."""
        try:
            data = b"" if self.source is None else self.source.read_bytes()
        except OSError as error:
            raise _unreadable(f"{model}/{self.file.path}", error) from error
        if hashlib.sha256(data).hexdigest() != self.file.sha256:
            raise changed_meanwhile(model, self.file.path)
        return data


@dataclass(frozen=True, slots=True)
class ModelUnits:
    """A model's folder: the files of each unit, sorted by path.

    `samples` are the golden requests by file name; None, not empty, without a folder `samples/`.
    """

    model: str
    units: Mapping[int | None, tuple[UnitFile, ...]]
    samples: Mapping[str, UnitFile] | None = None

    @property
    def versions(self) -> tuple[int, ...]:
        """The versions, ascending."""
        return tuple(sorted(version for version in self.units if version is not None))


def read_units(model: str, folder: Path) -> ModelUnits:
    """Read a model's folder; every file is read once, for its checksum.

    `__pycache__`, `*.pyc`, `facts/`, and anything but `*.json` in `samples/` are left out. Links inside the folder are
    followed, and a folder that would be empty gets a `.keep`.

    Raises:
        ModelConfigError: the folder cannot be pushed; the message names the file.
    """
    check_name(model)
    if not folder.is_dir():
        raise ModelConfigError(f"model {model!r}: {folder} is not a folder")
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


def is_below(path: str) -> bool:
    """Return whether a relative path stays below its folder, on any system."""
    return not {"", ".", ".."} & set(path.split("/")) and _OUTSIDE.search(path) is None


def check_name(model: str) -> None:
    """Raise `ModelConfigError` for a name that no model can have."""
    if not _NAME.fullmatch(model):
        raise ModelConfigError(
            f"{model!r} is not a name for a model: letters, digits, '.', '_' and '-' (at most 128), no '.' or '-' first"
        )


def check_unchanged(
    model: str, version: int | None, pushed: tuple[ModelFile, ...], folder: tuple[ModelFile, ...]
) -> None:
    """Raise `ImmutableError`, with every difference, if the files of a sealed unit differ from those in the folder."""
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
    return f"model {model!r}: " + ("its config" if version is None else f"version {version}")


def lost_unit(model: str, version: int | None) -> str:
    return f"{model}/{CONFIG if version is None else version} is gone"


def replaced_meanwhile(model: str, version: int | None) -> ConflictError:
    return ConflictError(
        f"{unit_name(model, version)} was replaced or withdrawn while it was being published; publish again"
    )


def in_use(model: str, version: int | None) -> ConflictError:
    return ConflictError(
        f"{unit_name(model, version)} is being published by somebody else; wait for that to end (`tidegate status` says "
        "who), then try again"
    )


def not_a_draft(model: str, version: int | None) -> ImmutableError:
    return ImmutableError(
        model,
        (),
        f"{unit_name(model, version)} was live, so that it stays: a rollback may need it. Take it out of the rules "
        "instead; what no revision needs is unloaded by itself",
    )


def changed_meanwhile(model: str, path: str) -> ModelConfigError:
    return ModelConfigError(f"{model}/{path} changed while it was being pushed; push again once it is written")


@dataclass(slots=True)
class _Walk:
    """`root` is the model's folder with links resolved."""

    model: str
    root: Path
    above: list[Path] = field(default_factory=list)

    def entries(self, folder: Path, prefix: str) -> Iterator[tuple[str, Path]]:
        try:
            paths = sorted(folder.iterdir())
        except OSError as error:
            raise _unreadable(f"{self.model}/{prefix}", error) from error
        for path in paths:
            if not is_bytecode(path.name):
                self._check(prefix + path.name, path)
                yield path.name, path

    def files(self, relative: str, path: Path) -> Iterator[UnitFile]:
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
        for name, entry in self.entries(path, f"{SAMPLES}/"):
            if name.endswith(".json"):
                yield name, self._file(f"{SAMPLES}/{name}", entry)

    def _check(self, relative: str, path: Path) -> None:
        place = f"{self.model}/{relative}"
        try:
            encoded = relative.encode()
        except UnicodeEncodeError:
            raise ModelConfigError(f"{place!r}: the name is not UTF-8; rename it") from None
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
