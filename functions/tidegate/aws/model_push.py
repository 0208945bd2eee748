"""The push of one model: its units one after another, then its golden requests."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

from tidegate.aws.formats import Manifest
from tidegate.aws.layout import SAMPLES, model_key
from tidegate.aws.objects import Objects
from tidegate.aws.unit_push import UnitPush
from tidegate.aws.upload import Uploader
from tidegate.model_units import ModelUnits, UnitFile, in_use, read_units
from tidegate.ports import PushOutcome, PushPlan, PushProgress, Unit
from tidegate.tasks import run_all


class ModelPush:
    """The push of a model's folder, as it was read. Made by `look`; then `plan` or `send`, once."""

    def __init__(self, objects: Objects, folder: ModelUnits) -> None:
        self.folder = folder
        self._objects = objects
        self._units = [UnitPush(objects, folder.model, version, files) for version, files in folder.units.items()]

    @classmethod
    async def look(cls, objects: Objects, model: str, folder: Path, held: Collection[Unit]) -> ModelPush:
        """Read a folder, and refuse it before anything is changed. Raises like `ModelStore.push`."""
        push = cls(objects, await asyncio.to_thread(read_units, model, folder))
        await run_all(unit.look() for unit in push._units)
        for unit in push._units:
            if unit.replaces and (model, unit.version) in held:
                raise in_use(model, unit.version)
        return push

    @property
    def model(self) -> str:
        return self.folder.model

    async def plan(self) -> PushPlan:
        samples = await self._compare()
        to_send = [each.file for each in self._files_to_send(samples)]
        return PushPlan(
            self.model,
            tuple(
                unit.version
                for unit in self._units
                if unit.version is not None and unit.committed is None and not unit.replaces
            ),
            tuple(sorted(to_send, key=lambda file: file.path)),
            is_done=not to_send and all(unit.committed is not None for unit in self._units),
            replaced=self._replaced(),
        )

    async def send(self, progress: PushProgress, part_bytes: int) -> PushOutcome:
        """Send what is missing, files above `part_bytes` in parts. Raises like `ModelStore.push`."""
        for number, unit in enumerate(self._units):
            await unit.begin(self._units[:number])
        samples = await self._compare()
        to_send = self._files_to_send(samples)
        tally = _Tally(progress, to_send)
        uploader = Uploader(self._objects, part_bytes)
        added = []
        for unit in self._units:
            await unit.files.send(uploader, tally.report)
            if await unit.commit() and unit.version is not None and not unit.replaces:
                added.append(unit.version)
        await self._send_samples(samples, tally)
        return PushOutcome(self.model, tuple(added), len(to_send), tally.total, self._replaced())

    def committed(self) -> Mapping[Unit, tuple[Manifest, str]]:
        """Return the manifest and its ETag of each unit, after `send`."""
        return {(self.model, unit.version): unit.committed for unit in self._units if unit.committed is not None}

    def _replaced(self) -> tuple[int | None, ...]:
        return tuple(unit.version for unit in self._units if unit.replaces)

    def _files_to_send(self, samples: Mapping[str, UnitFile]) -> list[UnitFile]:
        return [*(file for unit in self._units for file in unit.files.to_send), *samples.values()]

    async def _compare(self) -> dict[str, UnitFile]:
        """Find out what every unit must send, and return the golden requests to send."""
        listed = await self._objects.list(model_key(self.model))
        for unit in self._units:
            await unit.files.compare(listed, unit.committed and unit.committed[0])
        if not self.folder.samples:
            return {}
        there = await read_samples(self._objects, self.model)
        return {
            name: each
            for name, each in self.folder.samples.items()
            if name not in there or sha256(there[name]).hexdigest() != each.file.sha256
        }

    async def _send_samples(self, changed: Mapping[str, UnitFile], tally: _Tally) -> None:
        if self.folder.samples is None:
            return
        prefix = f"{SAMPLES}{self.model}/"
        for name, each in changed.items():
            data = await asyncio.to_thread(each.read, self.model)
            await self._objects.put(prefix + name, data)
            tally.report(each.file.path, len(data))
        for found in await self._objects.list(prefix):
            if found.key.removeprefix(prefix) not in self.folder.samples:
                await self._objects.delete(found.key)


async def read_samples(objects: Objects, model: str) -> dict[str, bytes]:
    prefix = f"{SAMPLES}{model}/"
    listed = await objects.list(prefix)
    stored = await run_all(objects.get(found.key) for found in listed)
    return {
        found.key.removeprefix(prefix): each.data
        for found, each in zip(listed, stored, strict=True)
        if each is not None
    }


class _Tally:
    def __init__(self, progress: PushProgress, files: Sequence[UnitFile]) -> None:
        self.total = sum(each.file.size_bytes for each in files)
        self._progress = progress
        self._sent: dict[str, int] = {}

    def report(self, path: str, sent_bytes: int) -> None:
        if self._sent.get(path) != sent_bytes:
            self._sent[path] = sent_bytes
            self._progress(path, sum(self._sent.values()), self.total)
