"""The push of one unit: a config, or a version of a model.

Of two pushes with different files only one may win, and a push that was killed must not block others. So a push first
writes an intent, one object with the files that it is going to write, and commits the unit by a conditional write to the same
object, which fails if another push has replaced the intent. Files are written only where there are none, or in place of one
whose ETag was read before the intent was found unchanged. The manifest, which all readers use, is written after the commit.

The manifest also says whether the unit is a draft. Before a push writes a unit, it replaces the draft or gap that it has seen
in the place of the manifest by a gap of its own: a draft that was sealed meanwhile stays, and a push that began earlier can no
longer write a manifest. A committed intent with neither a manifest nor a gap means that the manifest was lost: the unit may
have been live, and never changes. The same holds if either cannot be decoded.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterable, Sequence
from typing import Any

from tidegate.aws.formats import (
    GAP_TOKEN_BYTES,
    Intent,
    Manifest,
    decode_intent,
    decode_manifest,
    encode_gap,
    encode_intent,
    encode_manifest,
    is_gap,
)
from tidegate.aws.layout import MANIFESTS, PUSHES, unit_key
from tidegate.aws.objects import Objects, Stored
from tidegate.aws.unit_files import ATTEMPTS, UnitFiles
from tidegate.errors import ConflictError, StoreError
from tidegate.model_units import UnitFile, check_unchanged, not_a_draft, unit_name


class UnitPush:
    """The push of one unit: `look`, `begin`, `commit`; without files, its withdrawal: `look`, `withdraw`.

    Attributes:
        files: compare them after `begin`, and send them before `commit`.
        replaces: whether `look` found a draft with other files.
        is_gone: whether `look` found that it was withdrawn, and is not being pushed again.
        committed: the manifest with its ETag, once it is known.
    """

    def __init__(self, objects: Objects, model: str, version: int | None, files: Sequence[UnitFile] | None) -> None:
        self.model = model
        self.version = version
        self.key = unit_key(MANIFESTS, model, version)
        self.files = UnitFiles(objects, model, version, files or (), self.check_current)
        self._withdraws = files is None
        self.replaces = self.is_gone = False
        self.committed: tuple[Manifest, str] | None = None
        self._objects = objects
        self._wanted = tuple(each.file for each in files or ())
        self._is_committed = False
        self._is_lost = False
        self._intent_key = unit_key(PUSHES, model, version)
        self._intent_etag = ""
        self._place: str | None = None

    async def look(self) -> None:
        """Read the state of the unit. Raises `ImmutableError`: it is sealed, with other files."""
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
        # The commit replaces a damaged manifest.
        intended, intent = await self._read_intent()
        self.is_gone = intent is not None and not (intent.files or intent.committed)
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
        """Write the intent, unless the unit is committed.

        Every push begins the units of a model in the same order, and takes over no unit once it lost one of the `earlier`
        ones. Otherwise two pushes could each take what the other needs.

        Raises:
            ImmutableError: the unit was sealed meanwhile, with other files.
            ConflictError: another push took over or was first, or others keep beginning.
        """
        if self.committed is not None or self._is_committed:
            return
        mine = encode_intent(Intent(self._wanted, _by()))
        for _ in range(ATTEMPTS):
            stored, intent = await self._read_intent()
            if stored is not None and intent is not None and intent.files == self._wanted:
                self._join(stored, intent)
                if not intent.committed:
                    await self._open()
                return
            if intent is not None and intent.committed and not await self._is_open():
                raise self._late(intent)
            # An intent for other files belongs to a push that was killed, or will find out that it is late.
            for push in earlier if stored is not None else ():
                await push.check_current()
            written = await self._objects.put_over(self._intent_key, mine, stored.etag if stored else None)
            if written is not None:
                self._intent_etag = written
                await self._open()
                return
        raise self._contended()

    async def commit(self) -> bool:
        """Commit the unit. Return whether that was necessary.

        Raises:
            ConflictError: another push, of other files, took over.
        """
        if self.committed is not None:
            return False
        if not self._is_committed:
            await self.files.tidy()
            await self._commit_intent()
        manifest = Manifest(self.files.stored(), "" if self._is_lost else secrets.token_hex(GAP_TOKEN_BYTES))
        self.committed = await self._write_manifest(manifest)
        return True

    async def withdraw(self) -> None:
        """Remove the unit. Raises like `begin`."""
        await self.begin()
        await self.files.tidy()

    async def check_current(self) -> None:
        """Raise `ConflictError` if another push took over."""
        if self.committed is not None:
            return
        stored, intent = await self._read_intent()
        if stored is None or (stored.etag != self._intent_etag and (intent is None or intent.files != self._wanted)):
            raise self._late(intent)

    async def _open(self) -> None:
        """Put a gap in the place of the manifest, so that a push that began earlier can no longer write one."""
        place = self._place
        for _ in range(ATTEMPTS):
            gap = encode_gap(secrets.token_hex(GAP_TOKEN_BYTES))
            written = await self._objects.put_over(self.key, gap, place)
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
            # After the manifest was read: a push that takes over replaces the intent first.
            await self.check_current()
            place = None if stored is None else stored.etag
        raise self._contended()

    async def _is_open(self) -> bool:
        """Return whether the unit that another push has committed is still the draft that `look` found."""
        stored = await self._objects.get(self.key)
        return stored is not None and stored.etag == self._place

    async def _give_back(self, manifest: Manifest) -> None:
        """Restore the intent of a manifest that was sealed before this push could replace it."""
        files = tuple(stored.file for stored in manifest.files)
        intent = encode_intent(Intent(files, _by(), committed=True))
        await self._objects.put_over(self._intent_key, intent, self._intent_etag)

    async def _write_manifest(self, manifest: Manifest) -> tuple[Manifest, str]:
        """Write the manifest of the committed intent. Return the one that is there then, with its ETag."""
        data = encode_manifest(self.model, self.version, manifest.files, manifest.draft)
        place = self._place
        for _ in range(ATTEMPTS):
            written = await self._objects.put_over(self.key, data, place)
            if written is not None:
                return manifest, written
            stored = await self._objects.get(self.key)
            if (there := self._manifest_in(stored)) is not None and stored is not None:
                if self._is_wanted(there):
                    return there, stored.etag
                raise self._late(None)
            # After the gap was read: a push that takes over replaces the intent first.
            await self._check_committed()
            place = None if stored is None else stored.etag
        raise self._contended()

    async def _commit_intent(self) -> None:
        committed = encode_intent(Intent(self._wanted, _by(), committed=True))
        if await self._objects.put_over(self._intent_key, committed, self._intent_etag) is None:
            await self._check_committed()

    async def _check_committed(self) -> None:
        """Raise `ConflictError` unless these files are committed."""
        _, intent = await self._read_intent()
        if intent is None or not intent.committed or intent.files != self._wanted:
            raise self._late(intent)

    async def _read_intent(self) -> tuple[Stored | None, Intent | None]:
        """Return the object of the intent, and the intent unless it is damaged."""
        stored = await self._objects.get(self._intent_key)
        if stored is None:
            return None, None
        try:
            return stored, decode_intent(self._intent_key, stored.data)
        except StoreError:
            return stored, None

    def _join(self, stored: Stored, intent: Intent) -> None:
        self._check(intent.files)
        self._intent_etag, self._is_committed = stored.etag, intent.committed

    def _manifest_in(self, stored: Stored | None) -> Manifest | None:
        """Return the manifest in an object; None for a gap or a damaged one."""
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
            f"{unit_name(self.model, self.version)}: another push of it, with other files, took over ({who}); look at what "
            "it pushed, then push yours as another version"
        )

    def _contended(self) -> ConflictError:
        return ConflictError(
            f"{unit_name(self.model, self.version)}: other pushes of it keep beginning; push again when they have ended"
        )


def _by() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}"
