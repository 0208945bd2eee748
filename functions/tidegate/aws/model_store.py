"""The pushed models in S3, in Triton's own layout, with a manifest per unit that says that it is there whole."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import md5, sha256
from pathlib import Path

from tidegate.aws.formats import GAP_BYTES, Manifest, StoredFile, decode_manifest, encode_manifest, is_gap
from tidegate.aws.layout import MANIFESTS, MODELS, SAMPLES, model_key, parse_unit, unit_key
from tidegate.aws.model_damage import FEW, ModelInspector
from tidegate.aws.objects import Listed, Objects
from tidegate.aws.unit_push import UnitPush, run_all
from tidegate.aws.upload import PART_BYTES, Uploader
from tidegate.errors import ModelConfigError, StoreError
from tidegate.ports import ModelFile, PushOutcome, PushPlan, PushProgress, Unit
from tidegate.ports.model_units import (
    ModelUnits,
    UnitFile,
    check_name,
    in_use,
    read_units,
    replaced_meanwhile,
    version_of,
)

PUSHES_AT_ONCE = 8


class S3ModelStore:
    """A `ModelStore` in a bucket. How a push keeps two pushers apart: docs/control-plane.md, "The stores".

    Args:
        objects: the bucket.
        part_bytes: files above this are sent in parts of this size.
    """

    def __init__(self, objects: Objects, part_bytes: int = PART_BYTES) -> None:
        self._objects = objects
        self._part_bytes = part_bytes
        self._manifests: dict[Unit, _Read] = {}
        self._sources: dict[tuple[str, str], UnitFile] = {}
        self._inspector = ModelInspector(objects)

    async def models(self) -> Mapping[str, Sequence[int]]:
        """The models of which at least one version is there, sorted by name, with their versions, ascending.

        Raises:
            StoreError: S3 did not answer, or refused. So may every method here.
        """
        versions: dict[str, list[int]] = {}
        units = await self._units(MANIFESTS)
        for model, version in sorted((model, version) for model, version in units if version is not None):
            versions.setdefault(model, []).append(version)
        return versions

    async def versions(self, model: str) -> Sequence[int]:
        """The versions of a model that are there whole, ascending; empty for an unknown model."""
        units = await self._units(f"{MANIFESTS}{model}/")
        return sorted(version for _, version in units if version is not None)

    async def files(self, model: str, version: int | None) -> Sequence[ModelFile]:
        """The files of a version (None: of what belongs to no version), sorted by path; empty where it is not there."""
        manifest = await self._manifest(model, version)
        return () if manifest is None else tuple(stored.file for stored in manifest.files)

    async def read(self, model: str, path: str) -> bytes | None:
        """The content of one file of a model; None where there is none.

        What this object pushed, or found as it is in a folder, is read from there while it is the same.

        Raises:
            StoreError: its bytes are not those that were pushed.
        """
        units = dict.fromkeys([version_of(path.partition("/")[0]), None])
        files = {file.path: file for unit in units for file in await self.files(model, unit)}
        if path not in files:
            return None
        if (source := self._sources.get((model, path))) is not None and source.file == files[path]:
            with contextlib.suppress(ModelConfigError):
                # Spares two calls for each of hundreds.
                return await asyncio.to_thread(source.read, model)
        stored = await self._objects.get(model_key(model, path))
        if stored is None or sha256(stored.data).hexdigest() != files[path].sha256:
            how = "is gone" if stored is None else "is damaged: its bytes are not those that were pushed"
            raise StoreError(f"{model}/{path} {how}; push the model again to repair it")
        return stored.data

    async def damage(self, units: Collection[Unit]) -> Sequence[str]:
        """Which of some units, or of their files, are not there as they were pushed: see `ModelStore.damage`."""
        return await self._inspector.damage(units)

    async def samples(self, model: str) -> Mapping[str, bytes]:
        """The golden requests of a model as JSON by file name."""
        prefix = f"{SAMPLES}{model}/"
        listed = await self._objects.list(prefix)
        stored = await asyncio.gather(*(self._objects.get(found.key) for found in listed))
        return {
            found.key.removeprefix(prefix): each.data
            for found, each in zip(listed, stored, strict=True)
            if each is not None
        }

    async def push(self, model: str, folder: Path, progress: PushProgress, held: Collection[Unit] = ()) -> PushOutcome:
        """Push a model's folder: whatever of it is not there yet. After an interrupted push, files that are there whole
        are not sent again. Drafts with other files are replaced, unless they are `held`.

        Raises:
            ImmutableError: a config or a version that is there, and no draft, has other files; nothing was changed.
            ConflictError: a draft that is held has other files, or another push of the model began meanwhile.
            ModelConfigError: the folder cannot be pushed as it stands.
            StoreError: S3 did not answer, or refused.
        """
        (outcome,) = await self.push_all({model: folder}, lambda _: progress, held)
        return outcome

    async def push_all(
        self, folders: Mapping[str, Path], progress: Callable[[str], PushProgress], held: Collection[Unit] = ()
    ) -> Sequence[PushOutcome]:
        """Push the folders of several models: see `push`. Where one is refused, nothing of any is sent.

        `progress` gives the callback of each model.
        """
        gate = asyncio.Semaphore(PUSHES_AT_ONCE)

        async def look(model: str, folder: Path) -> tuple[ModelUnits, list[UnitPush]]:
            async with gate:
                return await self._look(model, folder, held)

        async def send(pushed: ModelUnits, pushes: list[UnitPush]) -> PushOutcome:
            async with gate:
                return await self._push(pushed, pushes, progress(pushed.model))

        looked = await run_all(look(model, folder) for model, folder in folders.items())
        # All of them come to their end, so that what one that fails leaves behind is not left by the others, too.
        outcomes = await asyncio.gather(*(send(*each) for each in looked), return_exceptions=True)
        return [_raised(each) for each in outcomes]

    async def _push(self, pushed: ModelUnits, pushes: list[UnitPush], progress: PushProgress) -> PushOutcome:
        model = pushed.model
        for number, push in enumerate(pushes):
            await push.begin(pushes[:number])
        samples = await self._compare(pushed, pushes)
        to_send = [file for push in pushes for file in push.to_send]
        tally = _Tally(progress, [*to_send, *samples.values()])
        uploader = Uploader(self._objects, self._part_bytes)
        added = []
        for push in pushes:
            await push.send(uploader, tally.at)
            if await push.commit() and push.version is not None and not push.replaces:
                added.append(push.version)
        await self._send_samples(pushed, samples, tally)
        self._remember(model, pushed)
        self._manifests.update(
            {(model, push.version): _Read.of(*push.committed) for push in pushes if push.committed is not None}
        )
        replaced = tuple(push.version for push in pushes if push.replaces)
        return PushOutcome(model, tuple(added), len(to_send) + len(samples), tally.total, replaced)

    async def unpushed(self, folders: Mapping[str, Path]) -> Sequence[str]:
        """Those of some models whose push may have something to do, or be refused.

        Few are simply all named. Of many, the bucket is listed once in place of some calls for each: a manifest whose
        ETag is the MD5 of what it should be is that. Where the bucket's encryption makes other ETags, all are named.
        """
        if len(folders) <= FEW:
            return tuple(folders)
        listings = await run_all(self._objects.list(prefix) for prefix in (MANIFESTS, MODELS, SAMPLES))
        listed = {found.key: found for listing in listings for found in listing}
        return await asyncio.to_thread(
            lambda: [model for model, folder in folders.items() if not self._is_there(model, folder, listed)]
        )

    def _is_there(self, model: str, folder: Path, listed: Mapping[str, Listed]) -> bool:
        """Whether all of a folder is among the objects of the bucket; what is, is remembered."""
        try:
            pushed = read_units(model, folder)
            units = {version: _as_listed(model, files, listed) for version, files in pushed.units.items()}
            samples = {name: _md5(each.read(model)) for name, each in (pushed.samples or {}).items()}
        except ModelConfigError:
            # The push says what is wrong.
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
        self._remember(model, pushed)
        return True

    def _remember(self, model: str, pushed: ModelUnits) -> None:
        self._sources.update({(model, each.file.path): each for files in pushed.units.values() for each in files})

    async def plan(self, model: str, folder: Path, held: Collection[Unit] = ()) -> PushPlan:
        """What a push would do now; nothing is changed.

        Raises:
            ImmutableError: a config or a version that is there, and no draft, has other files.
            ConflictError: a draft that is held has other files.
            ModelConfigError: the folder cannot be pushed as it stands.
            StoreError: S3 did not answer, or refused.
        """
        pushed, pushes = await self._look(model, folder, held)
        samples = await self._compare(pushed, pushes)
        to_send = [file.file for push in pushes for file in push.to_send]
        to_send += [each.file for each in samples.values()]
        return PushPlan(
            model,
            tuple(push.version for push in pushes if push.version is not None and not (push.is_there or push.replaces)),
            tuple(sorted(to_send, key=lambda file: file.path)),
            is_done=not to_send and all(push.is_there for push in pushes),
            replaced=tuple(push.version for push in pushes if push.replaces),
        )

    def forget_drafts(self) -> None:
        """Read drafts from the bucket again: see `ModelStore.forget_drafts`."""
        self._manifests = {unit: read for unit, read in self._manifests.items() if not read.tag}

    async def pin(self, units: Iterable[Unit]) -> Mapping[Unit, str]:
        """The drafts among some units, with their tags: see `ModelStore.pin`."""
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
        """Make drafts immutable that are still as they were pinned: see `ModelStore.seal`."""
        models = {model for model, _ in pins}
        below = [""] if len(models) > FEW else [f"{model}/" for model in sorted(models)]
        prefixes = [root + each for root in (MANIFESTS, MODELS) for each in below]
        listings = await run_all(self._objects.list(prefix) for prefix in prefixes)
        etags = {found.key: found.etag for listed in listings for found in listed}
        # All of them first: what is sealed for a publish that fails stays sealed.
        drafts = [each for each in [await self._draft(*pin, etags) for pin in pins.items()] if each is not None]
        await run_all(self._seal(*draft) for draft in drafts)

    async def _draft(self, unit: Unit, tag: str, etags: Mapping[str, str]) -> tuple[Unit, str, _Read] | None:
        """A draft that is as it was pinned; None where it has been sealed as that.

        Raises:
            ConflictError: it was replaced or withdrawn.
            StoreError: a file of it is damaged.
        """
        model, version = unit
        if etags.get(unit_key(MANIFESTS, model, version)) != tag:
            self._manifests.pop(unit, None)
        read = await self._manifest(model, version)
        if read is None or read.tag not in ("", tag):
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
        if await self._objects.put(key, sealed, etag=tag) is None:
            there = await self._objects.get(key)
            if there is None or there.data != sealed:
                raise replaced_meanwhile(model, version)
        self._manifests[unit] = _Read(read.files)

    async def withdraw(
        self, model: str, version: int | None = None, *, held: Collection[Unit] = (), dry_run: bool = False
    ) -> Sequence[int | None]:
        """Remove drafts: one version of a model, or (None) all of it: see `ModelStore.withdraw`."""
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
        """The units that have a manifest below a prefix; with `gaps` those that are being written or were withdrawn, too."""
        listed = await self._objects.list(prefix)
        found = [parse_unit(MANIFESTS, each.key) for each in listed if gaps or each.size_bytes > GAP_BYTES]
        return [unit for unit in found if unit is not None]

    async def _manifest(self, model: str, version: int | None) -> _Read | None:
        """A unit's manifest; that of a draft as it was when it was read first."""
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

    async def _look(self, model: str, folder: Path, held: Collection[Unit]) -> tuple[ModelUnits, list[UnitPush]]:
        """Read a folder, and refuse it where it has other files for what is there, before anything is changed."""
        pushed = await asyncio.to_thread(read_units, model, folder)
        pushes = [UnitPush(self._objects, model, version, files) for version, files in pushed.units.items()]
        await run_all(push.look() for push in pushes)
        for push in pushes:
            if push.replaces and (model, push.version) in held:
                raise in_use(model, push.version)
        return pushed, pushes

    async def _compare(self, pushed: ModelUnits, pushes: Sequence[UnitPush]) -> dict[str, UnitFile]:
        """Have every push find out what it must send; the golden requests that are to be sent too."""
        listed = await self._objects.list(model_key(pushed.model))
        for push in pushes:
            await push.compare(listed)
        return await self._changed_samples(pushed)

    async def _changed_samples(self, pushed: ModelUnits) -> dict[str, UnitFile]:
        """The golden requests that are not there as they are in the folder."""
        if not pushed.samples:
            return {}
        there = await self.samples(pushed.model)
        return {
            name: each
            for name, each in pushed.samples.items()
            if name not in there or sha256(there[name]).hexdigest() != each.file.sha256
        }

    async def _send_samples(self, pushed: ModelUnits, changed: Mapping[str, UnitFile], tally: _Tally) -> None:
        if pushed.samples is None:
            return
        prefix = f"{SAMPLES}{pushed.model}/"
        for name, each in changed.items():
            data = await asyncio.to_thread(each.read, pushed.model)
            await self._objects.put(prefix + name, data)
            tally.at(each.file.path, len(data))
        for found in await self._objects.list(prefix):
            if found.key.removeprefix(prefix) not in pushed.samples:
                await self._objects.delete(found.key)


@dataclass(frozen=True, slots=True)
class _Read:
    """What was read of a unit: its files, and the tag of a draft (empty where it never changes)."""

    files: tuple[StoredFile, ...]
    tag: str = ""

    @classmethod
    def of(cls, manifest: Manifest, etag: str) -> _Read:
        """What a manifest with its ETag says."""
        return cls(manifest.files, etag if manifest.draft else "")


def _raised(outcome: PushOutcome | BaseException) -> PushOutcome:
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def _as_listed(model: str, files: Sequence[UnitFile], listed: Mapping[str, Listed]) -> tuple[StoredFile, ...]:
    """The files of a unit with the ETags of the objects in their places; none where there is none of that size."""
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


class _Tally:
    """Adds up what has been sent of all files of a push, and tells it on."""

    def __init__(self, progress: PushProgress, files: Sequence[UnitFile]) -> None:
        self.total = sum(each.file.size_bytes for each in files)
        self._progress = progress
        self._sent: dict[str, int] = {}

    def at(self, path: str, sent_bytes: int) -> None:
        """So much of a file has been sent."""
        if self._sent.get(path) != sent_bytes:
            self._sent[path] = sent_bytes
            self._progress(path, sum(self._sent.values()), self.total)
