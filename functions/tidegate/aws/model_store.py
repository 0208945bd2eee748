"""The pushed models in S3, in Triton's own layout, with a manifest per unit once all its files are there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import md5, sha256
from pathlib import Path

from tidegate.aws.formats import GAP_BYTES, Manifest, StoredFile, decode_manifest, encode_manifest, is_gap
from tidegate.aws.layout import MANIFESTS, MODELS, SAMPLES, model_key, parse_unit, unit_key
from tidegate.aws.model_damage import FEW, ModelInspector, list_etags
from tidegate.aws.model_push import ModelPush, read_samples
from tidegate.aws.objects import Listed, Objects
from tidegate.aws.unit_push import UnitPush
from tidegate.aws.upload import PART_BYTES
from tidegate.errors import ModelConfigError, StoreError, TidegateError
from tidegate.model_layout import version_of
from tidegate.model_units import (
    ModelUnits,
    UnitFile,
    check_name,
    in_use,
    read_units,
    replaced_meanwhile,
)
from tidegate.ports import ModelFile, PushOutcome, PushPlan, PushProgress, Unit
from tidegate.tasks import run_all

PUSHES_AT_ONCE = 8


class S3ModelStore:
    """A `ModelStore` in a bucket. docs/control-plane.md, "The stores", says what happens when two processes push at once.

    Files above `part_bytes` are sent in parts of this size.
    """

    def __init__(self, objects: Objects, part_bytes: int = PART_BYTES) -> None:
        self._objects = objects
        self._part_bytes = part_bytes
        self._manifests: dict[Unit, _Read] = {}
        self._sources: dict[tuple[str, str], UnitFile] = {}
        self._inspector = ModelInspector(objects)

    async def models(self) -> Mapping[str, Sequence[int]]:
        versions: dict[str, list[int]] = {}
        units = await self._units(MANIFESTS)
        for model, version in sorted((model, version) for model, version in units if version is not None):
            versions.setdefault(model, []).append(version)
        return versions

    async def versions(self, model: str) -> Sequence[int]:
        units = await self._units(f"{MANIFESTS}{model}/")
        return sorted(version for _, version in units if version is not None)

    async def files(self, model: str, version: int | None) -> Sequence[ModelFile]:
        manifest = await self._manifest(model, version)
        return () if manifest is None else tuple(stored.file for stored in manifest.files)

    async def read(self, model: str, path: str) -> bytes | None:
        units = dict.fromkeys([version_of(path.partition("/")[0]), None])
        files = {file.path: file for unit in units for file in await self.files(model, unit)}
        if path not in files:
            return None
        if (source := self._sources.get((model, path))) is not None and source.file == files[path]:
            with contextlib.suppress(ModelConfigError):
                # What this object pushed or found in a folder: saves two calls for each of hundreds of files.
                return await asyncio.to_thread(source.read, model)
        stored = await self._objects.get(model_key(model, path))
        if stored is None or sha256(stored.data).hexdigest() != files[path].sha256:
            how = "is gone" if stored is None else "is damaged: its bytes are not those that were pushed"
            raise StoreError(f"{model}/{path} {how}; push the model again to repair it")
        return stored.data

    async def damage(self, units: Collection[Unit]) -> Sequence[str]:
        return await self._inspector.damage(units)

    async def samples(self, model: str) -> Mapping[str, bytes]:
        return await read_samples(self._objects, model)

    async def push(self, model: str, folder: Path, progress: PushProgress, held: Collection[Unit] = ()) -> PushOutcome:
        (outcome,) = await self.push_all({model: folder}, lambda _: progress, held)
        return outcome

    async def push_all(
        self, folders: Mapping[str, Path], progress: Callable[[str], PushProgress], held: Collection[Unit] = ()
    ) -> Sequence[PushOutcome]:
        gate = asyncio.Semaphore(PUSHES_AT_ONCE)

        async def look(model: str, folder: Path) -> ModelPush:
            async with gate:
                return await ModelPush.look(self._objects, model, folder, held)

        async def send(push: ModelPush) -> PushOutcome | Exception:
            async with gate:
                try:
                    outcome = await push.send(progress(push.model), self._part_bytes)
                except (TidegateError, OSError) as error:
                    # The others finish, so that one that fails leaves none half done.
                    return error
            self._remember(push.folder)
            self._manifests.update(
                {unit: _Read.of(manifest, etag) for unit, (manifest, etag) in push.committed().items()}
            )
            return outcome

        pushes = await run_all(look(model, folder) for model, folder in folders.items())
        return [_raised(each) for each in await run_all(map(send, pushes))]

    async def unpushed(self, folders: Mapping[str, Path]) -> Sequence[str]:
        if len(folders) <= FEW:
            return tuple(folders)
        listings = await run_all(self._objects.list(prefix) for prefix in (MANIFESTS, MODELS, SAMPLES))
        listed = {found.key: found for listing in listings for found in listing}
        return await asyncio.to_thread(
            lambda: [model for model, folder in folders.items() if not self._is_there(model, folder, listed)]
        )

    def _is_there(self, model: str, folder: Path, listed: Mapping[str, Listed]) -> bool:
        """Return whether the bucket has all files of a folder, and remember them if so."""
        try:
            pushed = read_units(model, folder)
            units = {version: _as_listed(model, files, listed) for version, files in pushed.units.items()}
            samples = {name: _md5(each.read(model)) for name, each in (pushed.samples or {}).items()}
        except ModelConfigError:
            # The push reports what is wrong.
            return False
        for version, files in units.items():
            if _etag(listed, unit_key(MANIFESTS, model, version)) != _md5(encode_manifest(model, version, files)):
                return False
        if any(_etag(listed, f"{SAMPLES}{model}/{name}") != digest for name, digest in samples.items()):
            return False
        if pushed.samples is not None:
            there = [key for key in listed if key.startswith(f"{SAMPLES}{model}/")]
            if len(there) != len(samples):
                return False
        self._manifests.update({(model, version): _Read(files) for version, files in units.items()})
        self._remember(pushed)
        return True

    def _remember(self, folder: ModelUnits) -> None:
        files = (each for unit in folder.units.values() for each in unit)
        self._sources.update({(folder.model, each.file.path): each for each in files})

    async def plan(self, model: str, folder: Path, held: Collection[Unit] = ()) -> PushPlan:
        push = await ModelPush.look(self._objects, model, folder, held)
        return await push.plan()

    def forget_drafts(self) -> None:
        self._manifests = {unit: read for unit, read in self._manifests.items() if not read.tag}

    async def pin(self, units: Iterable[Unit]) -> Mapping[Unit, str]:
        found: dict[Unit, str] = {}

        async def look(model: str, version: int | None) -> None:
            read = await self._manifest(model, version)
            if read is None:
                raise replaced_meanwhile(model, version)
            if read.tag:
                found[model, version] = read.tag

        await run_all(look(*unit) for unit in units)
        return found

    async def seal(self, pins: Mapping[Unit, str]) -> None:
        etags = await list_etags(self._objects, {model for model, _ in pins})
        # Check all of them first: drafts that are sealed for a failed publish stay sealed.
        drafts = [each for each in [await self._draft(*pin, etags) for pin in pins.items()] if each is not None]
        await run_all(self._seal(*draft) for draft in drafts)

    async def _draft(self, unit: Unit, tag: str, etags: Mapping[str, str]) -> tuple[Unit, str, _Read] | None:
        """Return a draft if it is as pinned; None if it has been sealed. Raises like `seal`."""
        model, version = unit
        if etags.get(unit_key(MANIFESTS, model, version)) != tag:
            self._manifests.pop(unit, None)
        read = await self._manifest(model, version)
        if read is None or read.tag not in (None, tag):
            raise replaced_meanwhile(model, version)
        for stored in read.files:
            if etags.get(model_key(model, stored.file.path)) != stored.etag:
                raise StoreError(
                    f"{model}/{stored.file.path} is not as it was pushed; push the model again, then publish again"
                )
        return (unit, tag, read) if read.tag else None

    async def _seal(self, unit: Unit, tag: str, read: _Read) -> None:
        model, version = unit
        key = unit_key(MANIFESTS, model, version)
        sealed = encode_manifest(model, version, read.files)
        if await self._objects.put_over(key, sealed, tag) is None:
            there = await self._objects.get(key)
            if there is None or there.data != sealed:
                raise replaced_meanwhile(model, version)
        self._manifests[unit] = _Read(read.files)

    async def withdraw(
        self, model: str, version: int | None = None, *, held: Collection[Unit] = (), dry_run: bool = False
    ) -> Sequence[int | None]:
        check_name(model)
        units = await self._units(f"{MANIFESTS}{model}/", gaps=True)
        pushes = [
            UnitPush(self._objects, model, each, None)
            for _, each in sorted(units, key=lambda unit: unit[1] or 0)
            if version in (None, each)
        ]
        await run_all(push.look() for push in pushes)
        for push in pushes:
            if (model, push.version) in held:
                raise in_use(model, push.version)
        pushes = [push for push in pushes if not push.is_gone]
        if not dry_run:
            for push in pushes:
                await push.withdraw()
                self._manifests.pop((model, push.version), None)
            if version is None:
                for found in await self._objects.list(f"{SAMPLES}{model}/"):
                    await self._objects.delete(found.key)
        return [push.version for push in pushes]

    async def _units(self, prefix: str, *, gaps: bool = False) -> list[Unit]:
        """Return the units with a manifest below a prefix; with `gaps` also those that are being written or were withdrawn."""
        listed = await self._objects.list(prefix)
        found = [parse_unit(MANIFESTS, each.key) for each in listed if gaps or each.size_bytes > GAP_BYTES]
        return [unit for unit in found if unit is not None]

    async def _manifest(self, model: str, version: int | None) -> _Read | None:
        """Return a unit's manifest, as it was when it was first read."""
        check_name(model)
        if (model, version) not in self._manifests:
            key = unit_key(MANIFESTS, model, version)
            stored = await self._objects.get(key)
            if stored is None or is_gap(stored.data):
                return None
            try:
                self._manifests[model, version] = _Read.of(decode_manifest(key, stored.data), stored.etag)
            except StoreError as error:
                raise StoreError(f"{error}; push model {model!r} again to replace it") from error
        return self._manifests[model, version]


@dataclass(frozen=True, slots=True)
class _Read:
    """The files of a unit, and the tag of a draft; None: it never changes."""

    files: tuple[StoredFile, ...]
    tag: str | None = None

    @classmethod
    def of(cls, manifest: Manifest, etag: str) -> _Read:
        return cls(manifest.files, etag if manifest.draft else None)


def _raised(outcome: PushOutcome | Exception) -> PushOutcome:
    if isinstance(outcome, Exception):
        raise outcome
    return outcome


def _as_listed(model: str, files: Sequence[UnitFile], listed: Mapping[str, Listed]) -> tuple[StoredFile, ...]:
    """Return the files of a unit with the ETags of their objects; empty if there is no object of that size."""
    found = [listed.get(model_key(model, each.file.path)) for each in files]
    return tuple(
        StoredFile(each.file, one.etag if one is not None and one.size_bytes == each.file.size_bytes else "")
        for each, one in zip(files, found, strict=True)
    )


def _etag(listed: Mapping[str, Listed], key: str) -> str:
    found = listed.get(key)
    return "" if found is None else found.etag.strip('"')


def _md5(data: bytes) -> str:
    return md5(data, usedforsecurity=False).hexdigest()
