"""The Protocol of the pushed models."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tidegate.model_units import ModelFile, Unit


@dataclass(frozen=True, slots=True)
class PushOutcome:
    """Result of a push: the versions that it added, the files that it sent, and the drafts that it `replaced` (None: the config)."""

    model: str
    versions: tuple[int, ...] = ()
    files: int = 0
    size_bytes: int = 0
    replaced: tuple[int | None, ...] = ()


@dataclass(frozen=True, slots=True)
class PushPlan:
    """The effect of a push: add `versions`, send `files` (sorted by path) and replace drafts (None: the config).

    `is_done`: nothing is left to do.
    """

    model: str
    versions: tuple[int, ...]
    files: tuple[ModelFile, ...]
    is_done: bool
    replaced: tuple[int | None, ...] = ()

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)


PushProgress = Callable[[str, int, int], None]
"""Callback with a file's path, the bytes of all files sent so far, and their total."""


class ModelStore(Protocol):
    """The pushed models, in units (see `Unit`).

    A unit exists once all its files do. It is a *draft*, which another push may replace and which may be withdrawn, until a
    publish seals it before it goes live. A sealed unit never changes, nor does one that is not known to be a draft.
    """

    async def models(self) -> Mapping[str, Sequence[int]]:
        """Return the models with at least one version, sorted by name, and their versions, ascending."""

    async def versions(self, model: str) -> Sequence[int]:
        """Return the versions of a model, ascending; empty for an unknown model."""

    async def files(self, model: str, version: int | None) -> Sequence[ModelFile]:
        """Return the files of a unit, sorted by path; empty for an unknown unit."""

    async def read(self, model: str, path: str) -> bytes | None:
        """Return the content of one file of a model, or None."""

    async def damage(self, units: Collection[Unit]) -> Sequence[str]:
        """Return sorted texts about units or files that are missing or changed. No file of a model is read."""

    async def push(self, model: str, folder: Path, progress: PushProgress, held: Collection[Unit] = ()) -> PushOutcome:
        """Push what the store does not have of a model's folder; whole files of an interrupted push are not sent again. Drafts
        with other files are replaced, unless they are `held`.

        Raises:
            ImmutableError: a sealed unit has other files; nothing was changed.
            ConflictError: a held draft has other files, or another push of the model began meanwhile.
            ModelConfigError: the folder cannot be pushed, such as for a link that leads out of it.
        """

    async def push_all(
        self, folders: Mapping[str, Path], progress: Callable[[str], PushProgress], held: Collection[Unit] = ()
    ) -> Sequence[PushOutcome]:
        """Push the folders of several models: see `push`. Nothing is sent if one is refused; `progress` makes the callback of a
        model."""

    async def plan(self, model: str, folder: Path, held: Collection[Unit] = ()) -> PushPlan:
        """Return the effect that `push` would have. Raises the errors that `push` raises before it changes anything."""

    async def unpushed(self, folders: Mapping[str, Path]) -> Sequence[str]:
        """Return the models whose push may have something to do, or be refused, with a few calls for hundreds of models."""

    async def samples(self, model: str) -> Mapping[str, bytes]:
        """Return the golden requests of a model as JSON by file name; they may change at any time."""

    def forget_drafts(self) -> None:
        """Read drafts from the store again."""

    async def pin(self, units: Iterable[Unit]) -> Mapping[Unit, str]:
        """Return the drafts among some units, each with a tag that is unique to the files that `files` and `read` returned.

        Raises:
            ConflictError: a unit is missing.
        """

    async def seal(self, pins: Mapping[Unit, str]) -> None:
        """Make drafts immutable if they are as pinned, before a revision that needs them goes live.

        Raises:
            ConflictError: one was replaced or withdrawn; others may have been sealed.
            StoreError: a file of one is damaged.
        """

    async def withdraw(
        self, model: str, version: int | None = None, *, held: Collection[Unit] = (), dry_run: bool = False
    ) -> Sequence[int | None]:
        """Remove drafts: one version of a model, or (None) all of it with its golden requests. Return the units that were
        removed, or would be, those of interrupted pushes included.

        Raises:
            ImmutableError: one of them is sealed; nothing was changed.
            ConflictError: one of them is held or being pushed.
        """
