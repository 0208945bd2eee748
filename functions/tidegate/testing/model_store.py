"""The pushed models in memory, with whatever should go wrong."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path

from tidegate.errors import ModelConfigError, StoreError
from tidegate.model_units import (
    ModelFile,
    ModelUnits,
    Unit,
    UnitFile,
    check_name,
    check_unchanged,
    in_use,
    lost_unit,
    not_a_draft,
    read_units,
    replaced_meanwhile,
)
from tidegate.ports.model_store import PushOutcome, PushPlan, PushProgress
from tidegate.testing.faults import StoreFaults

_Fresh = dict[int | None, tuple[UnitFile, ...]]


class MemoryModelStore:
    """A `ModelStore` in memory.

    Attributes:
        faults: what goes wrong.
        units: the files of every pushed unit by model and version (None: of no version); tests change them to damage it.
        contents: the bytes of every file by model and path.
        drafts: the tag of every unit that is a draft.
    """

    def __init__(self, faults: StoreFaults | None = None) -> None:
        self.faults = StoreFaults() if faults is None else faults
        self.units: dict[Unit, tuple[ModelFile, ...]] = {}
        self.contents: dict[tuple[str, str], bytes] = {}
        self.drafts: dict[Unit, str] = {}
        self._tags = itertools.count(1)
        self._samples: dict[str, dict[str, bytes]] = {}

    async def models(self) -> Mapping[str, Sequence[int]]:
        async with self.faults.around("models"):
            found: dict[str, list[int]] = {}
            for model, version in sorted((model, version) for model, version in self.units if version is not None):
                found.setdefault(model, []).append(version)
            return found

    async def versions(self, model: str) -> Sequence[int]:
        async with self.faults.around("versions"):
            return sorted(version for name, version in self.units if name == model and version is not None)

    async def files(self, model: str, version: int | None) -> Sequence[ModelFile]:
        async with self.faults.around("files"):
            return self.units.get((model, version), ())

    async def read(self, model: str, path: str) -> bytes | None:
        async with self.faults.around("read"):
            if f"{model}/{path}" in self.faults.damaged:
                raise StoreError(f"{model}/{path} is damaged: its bytes are not those that were pushed; push it again")
            return self.contents.get((model, path))

    async def damage(self, units: Collection[Unit]) -> Sequence[str]:
        async with self.faults.around("damage"):
            lost = [lost_unit(*unit) for unit in units if unit not in self.units]
            paths = [
                f"{model}/{file.path}" for model, version in units for file in self.units.get((model, version), ())
            ]
            return sorted([*lost, *(f"{path} is damaged" for path in paths if path in self.faults.damaged)])

    async def push(self, model: str, folder: Path, progress: PushProgress, held: Collection[Unit] = ()) -> PushOutcome:
        async with self.faults.around("push"):
            return self._push(*self._read(model, folder, held), progress)

    def push_now(self, model: str, folder: Path) -> None:
        """Push a model's folder, as another process may between two steps of this one."""
        self._push(*self._read(model, folder, ()), lambda *_: None)

    async def push_all(
        self, folders: Mapping[str, Path], progress: Callable[[str], PushProgress], held: Collection[Unit] = ()
    ) -> Sequence[PushOutcome]:
        async with self.faults.around("push"):
            read = [self._read(model, folder, held) for model, folder in folders.items()]
            return [self._push(pushed, fresh, progress(pushed.model)) for pushed, fresh in read]

    def _read(self, model: str, folder: Path, held: Collection[Unit]) -> tuple[ModelUnits, _Fresh]:
        """Return a folder, and its units that the store lacks or has with other files."""
        pushed = read_units(model, folder)
        fresh: _Fresh = {}
        for version, files in pushed.units.items():
            unit, wanted = (model, version), tuple(each.file for each in files)
            if self.units.get(unit) == wanted:
                continue
            if unit in self.units and unit not in self.drafts:
                check_unchanged(model, version, self.units[unit], wanted)
            if unit in self.units and unit in held:
                raise in_use(model, version)
            fresh[version] = files
        return pushed, fresh

    def _push(self, pushed: ModelUnits, fresh: _Fresh, progress: PushProgress) -> PushOutcome:
        model = pushed.model
        samples = {name: each.read(model) for name, each in (pushed.samples or {}).items()}
        contents = {each.file.path: each.read(model) for files in fresh.values() for each in files}
        replaced = tuple(version for version in fresh if (model, version) in self.units)
        for version, files in fresh.items():
            self._remove((model, version))
            self.units[model, version] = tuple(each.file for each in files)
            self.drafts[model, version] = f"draft {next(self._tags)}"
        self.contents.update({(model, path): data for path, data in contents.items()})
        sent = self._send_samples(model, pushed.samples, samples)
        sent += [each.file for files in fresh.values() for each in files]
        total, done = sum(file.size_bytes for file in sent), 0
        for file in sent:
            done += file.size_bytes
            progress(file.path, done, total)
        versions = tuple(version for version in fresh if version is not None and version not in replaced)
        return PushOutcome(model, versions, len(sent), total, replaced)

    async def plan(self, model: str, folder: Path, held: Collection[Unit] = ()) -> PushPlan:
        async with self.faults.around("plan"):
            pushed, fresh = self._read(model, folder, held)
            before = self._samples.get(model, {})
            samples = [each for name, each in (pushed.samples or {}).items() if before.get(name) != each.read(model)]
            replaced = tuple(version for version in fresh if (model, version) in self.units)
            files = [each.file for files in (*fresh.values(), samples) for each in files]
            return PushPlan(
                model,
                tuple(version for version in fresh if version is not None and version not in replaced),
                tuple(sorted(files, key=lambda file: file.path)),
                is_done=not (files or fresh),
                replaced=replaced,
            )

    def forget_drafts(self) -> None:
        """Nothing is kept beside the store itself."""

    async def pin(self, units: Iterable[Unit]) -> Mapping[Unit, str]:
        async with self.faults.around("pin"):
            for model, version in (units := tuple(units)):
                if (model, version) not in self.units:
                    raise replaced_meanwhile(model, version)
            return {unit: self.drafts[unit] for unit in units if unit in self.drafts}

    async def seal(self, pins: Mapping[Unit, str]) -> None:
        async with self.faults.around("seal"):
            for unit, tag in pins.items():
                if unit not in self.units or self.drafts.get(unit, tag) != tag:
                    raise replaced_meanwhile(*unit)
            for unit in pins:
                self.drafts.pop(unit, None)

    async def withdraw(
        self, model: str, version: int | None = None, *, held: Collection[Unit] = (), dry_run: bool = False
    ) -> Sequence[int | None]:
        check_name(model)
        async with self.faults.around("withdraw"):
            found = [unit for unit in self.units if unit[0] == model and version in (None, unit[1])]
            for unit in found:
                if unit not in self.drafts:
                    raise not_a_draft(*unit)
                if unit in held:
                    raise in_use(*unit)
            if not dry_run:
                for unit in found:
                    self._remove(unit)
                if version is None:
                    self._samples.pop(model, None)
            return sorted((each for _, each in found), key=lambda each: each or 0)

    def _remove(self, unit: Unit) -> None:
        for file in self.units.pop(unit, ()):
            self.contents.pop((unit[0], file.path), None)
        self.drafts.pop(unit, None)

    async def unpushed(self, folders: Mapping[str, Path]) -> Sequence[str]:
        async with self.faults.around("unpushed"):
            return [model for model, folder in folders.items() if not self._has(model, folder)]

    async def samples(self, model: str) -> Mapping[str, bytes]:
        async with self.faults.around("samples"):
            return dict(self._samples.get(model, {}))

    def _has(self, model: str, folder: Path) -> bool:
        try:
            pushed = read_units(model, folder)
            samples = {name: each.read(model) for name, each in (pushed.samples or {}).items()}
        except ModelConfigError:
            return False
        if pushed.samples is not None and samples != self._samples.get(model, {}):
            return False
        return all(
            self.units.get((model, version)) == tuple(each.file for each in files)
            for version, files in pushed.units.items()
        )

    def _send_samples(
        self, model: str, wanted: Mapping[str, UnitFile] | None, contents: dict[str, bytes]
    ) -> list[ModelFile]:
        if wanted is None:
            return []
        before = self._samples.get(model, {})
        self._samples[model] = contents
        return [wanted[name].file for name, data in contents.items() if before.get(name) != data]
