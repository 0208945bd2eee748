"""The push of one unit: a config, or a version of a model.

Two pushers of different files must not both win, and a push that was killed must not be in the way. So a push first
writes down what it means to write (its intent, one object, always written under a condition), and the unit is committed
by a conditional write to that same object: whoever replaced the intent meanwhile makes that fail. Objects are written
only where there are none, or in place of one whose ETag was seen before the intent was found to stand still. The
manifest, by which everyone else goes, follows the commit.

The manifest also says whether the unit is a draft. Whoever begins to write a unit first puts a gap in the place of its
manifest, on the condition of the draft or the gap that was seen there: so a draft that was sealed meanwhile stays, and
nobody who began earlier can put a manifest there any more. Where there is neither a manifest nor a gap beside a
committed intent, the manifest was lost: the unit may have been live, and never changes. So it is where what stands in
their places cannot be read.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any

from tidegate.aws.formats import (
    GAP_TOKEN_BYTES,
    Intent,
    Manifest,
    StoredFile,
    decode_intent,
    decode_manifest,
    encode_gap,
    encode_intent,
    encode_manifest,
    is_gap,
)
from tidegate.aws.layout import MANIFESTS, PUSHES, model_key, unit_key
from tidegate.aws.objects import Listed, Objects, Stored
from tidegate.aws.upload import Uploader
from tidegate.errors import ConflictError, StoreError
from tidegate.ports.model_units import UnitFile, check_unchanged, not_a_draft, unit_name, version_of

ATTEMPTS = 5
Progress = Callable[[str, int], None]
"""Callback with a file's path, and how many bytes of it have been sent."""


class UnitPush:
    """One unit on its way into the bucket: `look`, `begin`, `compare`, `send`, `commit`, in this order. Without `files` (None)
    it is on its way out: `look`, `withdraw`.

    Attributes:
        model: the model's name.
        version: the version; None is what belongs to no version.
        files: all files of the unit.
        replaces: whether it takes the place of a draft with other files; known after `look`.
        to_send: those that are not there as they should be; known after `compare`.
        committed: the unit's manifest with its ETag; known after `commit`, and after `look` where it is there.
    """

    def __init__(self, objects: Objects, model: str, version: int | None, files: Sequence[UnitFile] | None) -> None:
        self.model = model
        self.version = version
        self.files = () if files is None else files
        self._withdraws = files is None
        self.replaces = False
        self.to_send: tuple[UnitFile, ...] = ()
        self.committed: tuple[Manifest, str] | None = None
        self._objects = objects
        self._wanted = tuple(each.file for each in self.files)
        self._is_committed = False
        self._is_lost = self._is_gone = False
        self._intent_etag = ""
        self._place: str | None = None
        self._etags: dict[str, str] = {}

    @property
    def is_there(self) -> bool:
        """Whether the unit is there whole; known after `look`."""
        return self.committed is not None

    @property
    def is_gone(self) -> bool:
        """Whether the unit was withdrawn, and is not being pushed again; known after `look`."""
        return self._is_gone

    @property
    def key(self) -> str:
        """The key of the unit's manifest."""
        return unit_key(MANIFESTS, self.model, self.version)

    async def look(self) -> None:
        """See what is there of the unit.

        Raises:
            ImmutableError: it is there, with other files, and no draft.
            StoreError: S3 did not answer, or refused. So may every step.
        """
        stored = await self._objects.get(self.key)
        self._place = None if stored is None else stored.etag
        if (manifest := self._manifest_in(stored)) is not None and stored is not None:
            if self._is_wanted(manifest):
                self.committed = manifest, stored.etag
            elif manifest.draft:
                self.replaces = True
            elif self._withdraws:
                raise not_a_draft(self.model, self.version)
            else:
                self._check(file.file for file in manifest.files)
            return
        # No manifest, or a damaged one, which the commit replaces.
        intended, intent = await self._read_intent()
        self._is_gone = intent is not None and not (intent.files or intent.committed)
        is_committed = intent is not None and intent.committed
        is_damaged = stored is not None and not is_gap(stored.data)
        self._is_lost = is_damaged or (stored is None and intended is not None and (intent is None or is_committed))
        if self._is_lost and self._withdraws:
            raise not_a_draft(self.model, self.version)
        if intended is None or intent is None or not is_committed:
            return
        if self._is_lost or intent.files == self._wanted:
            self._join(intended, intent)

    async def begin(self, earlier: Iterable[UnitPush] = ()) -> None:
        """Write down what is to be written, unless the unit is there.

        The units of a model begin in the same order in every push. One that lost a unit in `earlier` does not take over
        another one, or two pushes could each take what the other needs.

        Raises:
            ImmutableError: the unit was made immutable meanwhile, with other files.
            ConflictError: another push took over, was first, or others keep beginning.
        """
        if self.committed is not None or self._is_committed:
            return
        mine = encode_intent(Intent(self._wanted, _by()))
        key = unit_key(PUSHES, self.model, self.version)
        for _ in range(ATTEMPTS):
            stored, intent = await self._read_intent()
            if stored is not None and intent is not None and intent.files == self._wanted:
                self._join(stored, intent)
                if not intent.committed:
                    await self._open()
                return
            if intent is not None and intent.committed and not await self._is_open():
                raise self._late(intent)
            # An intent for other files is that of a push that was killed, or of one that will learn that it is late.
            for push in earlier if stored is not None else ():
                await push.stand()
            written = await self._objects.put(key, mine, absent=stored is None, etag=stored.etag if stored else None)
            if written is not None:
                self._intent_etag = written
                await self._open()
                return
        raise ConflictError(f"{self._what()}: other pushes of it keep beginning; push again when they have ended")

    async def compare(self, listed: Iterable[Listed]) -> None:
        """Find out which files are not there as they should be, among the objects of the model."""
        there = {found.key: found for found in listed}
        found = [there.get(self._key(each)) for each in self.files]
        right = await run_all(self._is_right(each, one) for each, one in zip(self.files, found, strict=True))
        self._etags = {each.file.path: one.etag for each, one in zip(self.files, found, strict=True) if one}
        self.to_send = tuple(each for each, is_right in zip(self.files, right, strict=True) if not is_right)

    async def send(self, uploader: Uploader, progress: Progress) -> None:
        """Send what is to be sent.

        Raises:
            ConflictError: another push, of other files, took over.
            ModelConfigError: a file changed meanwhile.
        """
        if any(each.file.path in self._etags for each in self.to_send):
            await self.stand()
        await run_all(self._send(uploader, each, progress) for each in self.to_send)

    async def commit(self) -> bool:
        """Make the unit be there; whether it was not before.

        Raises:
            ConflictError: another push, of other files, took over.
        """
        if self.committed is not None:
            return False
        if not self._is_committed:
            await self._tidy()
            await self._commit_intent()
        files = tuple(StoredFile(file, self._etags[file.path]) for file in self._wanted)
        manifest = Manifest(files, "" if self._is_lost else _token())
        self.committed = await self._write_manifest(manifest)
        return True

    async def withdraw(self) -> None:
        """Remove the unit, which is a draft or was never committed, in place of pushing it.

        Raises:
            ImmutableError: it was sealed meanwhile.
            ConflictError: another push took over.
        """
        await self.begin()
        await self._tidy()

    async def stand(self) -> None:
        """See that no other push took over.

        Raises:
            ConflictError: one did.
        """
        if self.committed is not None:
            return
        stored, intent = await self._read_intent()
        if stored is None or (stored.etag != self._intent_etag and (intent is None or intent.files != self._wanted)):
            raise self._late(intent)

    async def _send(self, uploader: Uploader, each: UnitFile, progress: Progress) -> None:
        path, key = each.file.path, self._key(each)
        etag = self._etags.get(path)
        for _ in range(ATTEMPTS):
            sent = [0]

            def add(count: int, sent: list[int] = sent) -> None:
                sent[0] += count
                progress(path, sent[0])

            written = await uploader.send(self.model, key, each, etag=etag, stand=self.stand, sent=add)
            if written is None:
                found = await self._objects.head(key)
                etag = found.etag if found else None
                if found is not None and _matches(found, each):
                    written = found.etag
            if written is not None:
                self._etags[path] = written
                progress(path, each.file.size_bytes)
                return
            await self.stand()
        raise ConflictError(f"{self._what()}: {path} is written by someone else again and again; push again later")

    async def _is_right(self, each: UnitFile, found: Listed | None) -> bool:
        if found is None or found.size_bytes != each.file.size_bytes:
            return False
        if self.committed is not None:
            etags = {stored.file.path: stored.etag for stored in self.committed[0].files}
            if etags[each.file.path] == found.etag:
                return True
        head = await self._objects.head(found.key)
        return head is not None and _matches(head, each)

    async def _open(self) -> None:
        """Put a gap in the place of the manifest: from now on nobody who began earlier can put one there.

        Raises:
            ImmutableError: the draft that was there has been sealed meanwhile.
            ConflictError: others keep beginning.
        """
        place = self._place
        for _ in range(ATTEMPTS):
            gap = encode_gap(_token())
            written = await self._objects.put(self.key, gap, absent=place is None, etag=place)
            stored = None if written is not None else await self._objects.get(self.key)
            if stored is not None and stored.data == gap:
                written = stored.etag
            if written is not None:
                self._place = written
                return
            if (manifest := self._manifest_in(stored)) is not None and stored is not None:
                if self._is_wanted(manifest):
                    self.committed = manifest, stored.etag
                    return
                if not manifest.draft:
                    await self._give_back(manifest)
                    self._check(file.file for file in manifest.files)
            # After the manifest was read: whoever takes over replaces the intent first, and then what is there.
            await self.stand()
            place = None if stored is None else stored.etag
        raise ConflictError(f"{self._what()}: other pushes of it keep beginning; push again when they have ended")

    async def _is_open(self) -> bool:
        """Whether what another push has committed may be replaced, and was there when this one looked."""
        stored = await self._objects.get(self.key)
        return stored is not None and stored.etag == self._place

    async def _give_back(self, manifest: Manifest) -> None:
        """Let the intent say again what is there, which was sealed before this push could replace it."""
        files = tuple(stored.file for stored in manifest.files)
        intent = encode_intent(Intent(files, _by(), committed=True))
        await self._objects.put(unit_key(PUSHES, self.model, self.version), intent, etag=self._intent_etag)

    async def _write_manifest(self, manifest: Manifest) -> tuple[Manifest, str]:
        """Write the manifest of the committed intent; what is there then, with its ETag.

        Raises:
            ConflictError: another push, of other files, took over.
        """
        data = encode_manifest(self.model, self.version, manifest.files, manifest.draft)
        place = self._place
        for _ in range(ATTEMPTS):
            written = await self._objects.put(self.key, data, absent=place is None, etag=place)
            if written is not None:
                return manifest, written
            stored = await self._objects.get(self.key)
            if (there := self._manifest_in(stored)) is not None and stored is not None:
                if self._is_wanted(there):
                    return there, stored.etag
                raise self._late(None)
            # After the gap was read: whoever takes over replaces the intent first, and then the gap.
            intended, intent = await self._read_intent()
            if intended is None or intent is None or not intent.committed or intent.files != self._wanted:
                raise self._late(intent)
            place = None if stored is None else stored.etag
        raise ConflictError(f"{self._what()}: other pushes of it keep beginning; push again when they have ended")

    async def _tidy(self) -> None:
        """Remove what a push of other files left in the unit's place, and see that all of this one is there."""
        prefix = model_key(self.model, "" if self.version is None else f"{self.version}/")
        there = {found.key: found for found in await self._objects.list(prefix) if self._holds(found.key)}
        wanted = {self._key(each): each for each in self.files}
        changed = [
            each for key, each in wanted.items() if key not in there or there[key].etag != self._etags[each.file.path]
        ]
        strays = [key for key in there if key not in wanted]
        if changed or strays:
            await self.stand()
        for each in changed:
            # Sent again by a push of the same files, an object may have another ETag (as encrypted ones do).
            found = await self._objects.head(self._key(each))
            if found is None or not _matches(found, each):
                raise StoreError(f"{self._what()}: {each.file.path} was changed by someone else meanwhile; push again")
            self._etags[each.file.path] = found.etag
        for key in strays:
            await self._objects.delete(key)

    async def _commit_intent(self) -> None:
        committed = encode_intent(Intent(self._wanted, _by(), committed=True))
        key = unit_key(PUSHES, self.model, self.version)
        if await self._objects.put(key, committed, etag=self._intent_etag) is not None:
            return
        stored, intent = await self._read_intent()
        if stored is None or intent is None or not intent.committed or intent.files != self._wanted:
            raise self._late(intent)

    async def _read_intent(self) -> tuple[Stored | None, Intent | None]:
        """The unit's intent with its object; None for one that is damaged."""
        key = unit_key(PUSHES, self.model, self.version)
        stored = await self._objects.get(key)
        if stored is None:
            return None, None
        try:
            return stored, decode_intent(key, stored.data)
        except StoreError:
            return stored, None

    def _join(self, stored: Stored, intent: Intent) -> None:
        self._check(intent.files)
        self._intent_etag, self._is_committed = stored.etag, intent.committed

    def _manifest_in(self, stored: Stored | None) -> Manifest | None:
        """The manifest in its place; None where there is none, or a damaged one."""
        if stored is None or is_gap(stored.data):
            return None
        try:
            return decode_manifest(self.key, stored.data)
        except StoreError:
            return None

    def _is_wanted(self, manifest: Manifest) -> bool:
        return not self._withdraws and tuple(stored.file for stored in manifest.files) == self._wanted

    def _check(self, there: Iterable[Any]) -> None:
        check_unchanged(self.model, self.version, tuple(there), self._wanted)

    def _late(self, intent: Intent | None) -> ConflictError:
        who = intent.by if intent else "someone"
        return ConflictError(
            f"{self._what()}: another push of it, with other files, took over ({who}); look at what it pushed, then push "
            "yours as another version"
        )

    def _holds(self, key: str) -> bool:
        """Whether a key below the model's is one of this unit."""
        if self.version is not None:
            return True
        first, separator, _ = key.removeprefix(model_key(self.model)).partition("/")
        return not separator or version_of(first) is None

    def _key(self, each: UnitFile) -> str:
        return model_key(self.model, each.file.path)

    def _what(self) -> str:
        return unit_name(self.model, self.version)


async def run_all(work: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Run everything side by side; the first failure ends the rest, and is raised."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _matches(found: Listed, each: UnitFile) -> bool:
    return (found.sha256, found.size_bytes) == (each.file.sha256, each.file.size_bytes)


def _token() -> str:
    return secrets.token_hex(GAP_TOKEN_BYTES)


def _by() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"
