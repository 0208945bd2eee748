"""The Protocol of the pushed models."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One file of a pushed model: `path` relative to the model's folder, `sha256` in hexadecimal, `size_bytes`."""

    path: str
    sha256: str
    size_bytes: int


Unit = tuple[str, int | None]
"""What is pushed, replaced and withdrawn as a whole: a version of a model, or (None) what belongs to no version of it."""


@dataclass(frozen=True, slots=True)
class PushOutcome:
    """What a push did: the versions that it added, and the files and bytes that it sent; nothing where all was there.

    `replaced` are the versions (None: the config) that had been pushed with other files and were never live.
    """

    model: str
    versions: tuple[int, ...] = ()
    files: int = 0
    size_bytes: int = 0
    replaced: tuple[int | None, ...] = ()


@dataclass(frozen=True, slots=True)
class PushPlan:
    """What a push would do: the versions that it would add and the files that it would send, sorted by path.

    `is_done` says that nothing is left to do; `replaced` are the drafts that have other files, None for the config.
    """

    model: str
    versions: tuple[int, ...]
    files: tuple[ModelFile, ...]
    is_done: bool
    replaced: tuple[int | None, ...] = ()

    @property
    def size_bytes(self) -> int:
        """How much would be sent."""
        return sum(file.size_bytes for file in self.files)


PushProgress = Callable[[str, int, int], None]
"""Is told the path of the file that was sent, the bytes sent so far, and how many there are to send."""


class ModelStore(Protocol):
    """The pushed models: files that every shard can load.

    What belongs to no version (the config, label files) is one unit, each version is another. A unit is there only once
    all its files are. Until a publish has sealed it, which it does before it makes it live, a unit is a *draft*: another
    push may replace it, and it may be withdrawn. A sealed unit never changes, and neither does one of which it is not
    known that it is a draft.
    """

    async def models(self) -> Mapping[str, Sequence[int]]:
        """The models of which at least one version is there, sorted by name, with their versions, ascending."""
        ...

    async def versions(self, model: str) -> Sequence[int]:
        """The versions of a model that are there whole, ascending; empty for an unknown model."""
        ...

    async def files(self, model: str, version: int | None) -> Sequence[ModelFile]:
        """The files of a version (None: of what belongs to no version), sorted by path; empty where it is not there."""
        ...

    async def read(self, model: str, path: str) -> bytes | None:
        """The content of one file of a model; None where there is none."""
        ...

    async def damage(self, units: Collection[Unit]) -> Sequence[str]:
        """Which of some units, or of their files, are not there as they were pushed, in words, sorted. The store is asked
        again, and no file of a model is read."""
        ...

    async def push(self, model: str, folder: Path, progress: PushProgress, held: Collection[Unit] = ()) -> PushOutcome:
        """Push a model's folder: whatever of it is not there yet. After an interrupted push, files that are there whole
        are not sent again. Drafts with other files are replaced, unless they are `held`.

        Raises:
            ImmutableError: a config or a version that is there, and no draft, has other files; nothing was changed.
            ConflictError: a draft that is held has other files, or another push of the model began meanwhile.
            ModelConfigError: the folder cannot be pushed as it stands, such as for a link that leads out of it.
        """
        ...

    async def push_all(
        self, folders: Mapping[str, Path], progress: Callable[[str], PushProgress], held: Collection[Unit] = ()
    ) -> Sequence[PushOutcome]:
        """Push the folders of several models: see `push`. Where one is refused, nothing of any is sent.

        `progress` gives the callback of each model.
        """
        ...

    async def plan(self, model: str, folder: Path, held: Collection[Unit] = ()) -> PushPlan:
        """What `push` would do now; nothing is changed. Raises what `push` would find before it begins."""
        ...

    async def unpushed(self, folders: Mapping[str, Path]) -> Sequence[str]:
        """Those of some models whose push may have something to do, or be refused. What is left out is there, file by
        file as in its folder. For hundreds of models this costs a few calls of the store."""
        ...

    async def samples(self, model: str) -> Mapping[str, bytes]:
        """The golden requests of a model as JSON by file name; they are not served, and may change at any time."""
        ...

    def forget_drafts(self) -> None:
        """Read drafts from the store again, where this object has kept what it read of them."""
        ...

    async def pin(self, units: Iterable[Unit]) -> Mapping[Unit, str]:
        """The drafts among some units, each with a tag of the files that `files` and `read` gave of it. A tag is never
        the same for other files.

        Raises:
            ConflictError: a unit is not there (any more).
        """
        ...

    async def seal(self, pins: Mapping[Unit, str]) -> None:
        """Make drafts immutable that are still as they were pinned, before a revision that needs them becomes live.

        Raises:
            ConflictError: one was replaced or withdrawn since. Others may have been sealed.
            StoreError: a file of one is damaged.
        """
        ...

    async def withdraw(
        self, model: str, version: int | None = None, *, held: Collection[Unit] = (), dry_run: bool = False
    ) -> Sequence[int | None]:
        """Remove drafts: one version of a model, or (None) all of it with its golden requests.

        Returns:
            What was removed, or would be: versions, and None for what belongs to no version. A push that was
            interrupted counts as well.

        Raises:
            ImmutableError: something of it is no draft; nothing was changed.
            ConflictError: something of it is held, or a push of it is under way.
        """
        ...
