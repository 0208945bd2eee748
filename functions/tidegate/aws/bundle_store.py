"""Bundles, assignments, claims and the one pointer in S3."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from urllib.parse import quote

from tidegate.aws.formats import (
    decode_assignment,
    decode_claim,
    decode_pointer,
    encode_assignment,
    encode_claim,
    encode_entry,
    encode_pointer,
)
from tidegate.aws.layout import CLAIMS, HISTORY, POINTER, assignment_key, bundle_key, history_key
from tidegate.aws.objects import Objects
from tidegate.errors import BundleError, StoreError
from tidegate.ports import Claim, LiveEntry, ModelLoad, Pointer
from tidegate.ports.store_rules import check_flip, moved, pointer_after
from tidegate.rules.bundle import revision_of

_log = logging.getLogger(__name__)

FLIP_ATTEMPTS = 3


class S3BundleStore:
    """A `BundleStore` in a bucket. Every method may raise `StoreError`: S3 did not answer, or refused."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects

    async def pointer(self, known_tag: str | None = None) -> Pointer | None:
        """The pointer; None where nothing was ever published, or where its tag is still `known_tag`.

        Raises:
            StoreError: it is damaged.
        """
        stored = await self._objects.get(POINTER, known_tag)
        return None if stored is None else decode_pointer(stored.data, stored.etag)

    async def bundle(self, revision: str) -> bytes:
        """The bytes of a bundle, whose digest has been checked.

        Raises:
            BundleError: there is no such bundle, or its bytes are not those of the revision.
        """
        stored = await self._objects.get(bundle_key(revision))
        if stored is None:
            raise BundleError(f"there is no bundle of revision {revision[:12]} in bucket {self._objects.bucket}")
        if revision_of(stored.data) != revision:
            raise BundleError(f"the bundle of revision {revision[:12]} is damaged: its digest is another")
        return stored.data

    async def put_bundle(self, data: bytes) -> str:
        """Store a bundle; its revision. Storing what is there already changes nothing, but mends a damaged one."""
        revision = revision_of(data)
        key = bundle_key(revision)
        if await self._objects.put(key, data, absent=True, content_type="application/octet-stream") is None:
            there = await self._objects.get(key)
            if there is not None and there.data != data:
                await self._objects.put(key, data, etag=there.etag, content_type="application/octet-stream")
        return revision

    async def put_assignment(self, revision: str, plans: Mapping[str, Sequence[ModelLoad]]) -> None:
        """Store what each shard must hold for a revision. It never changes, but a damaged one is mended.

        Raises:
            StoreError: another assignment of the revision is there.
        """
        key, data = assignment_key(revision), encode_assignment(revision, plans)
        if await self._objects.put(key, data, absent=True) is not None:
            return
        there = await self._objects.get(key)
        if there is None or there.data == data:
            return
        try:
            decode_assignment(revision, there.data)
        except StoreError:
            await self._objects.put(key, data, etag=there.etag)
        else:
            raise StoreError(f"another assignment of revision {revision[:12]} is there, and never changes")

    async def assignment(self, revision: str) -> Mapping[str, tuple[ModelLoad, ...]]:
        """What each shard must hold for a revision.

        Raises:
            BundleError: it is not there, or is damaged.
        """
        stored = await self._objects.get(assignment_key(revision))
        if stored is None:
            raise BundleError(f"there is no assignment of revision {revision[:12]} in bucket {self._objects.bucket}")
        try:
            return decode_assignment(revision, stored.data)
        except StoreError as error:
            raise BundleError(str(error)) from error

    async def flip(self, entry: LiveEntry, expected: Pointer | None) -> Pointer:
        """Make a revision live, if the pointer is still `expected` (None: if there is none yet).

        Raises:
            ConflictError: the pointer has moved; it names who moved it.
            ValueError: the entry cannot follow `expected`.
            StoreError: S3 did not answer: the pointer may have been flipped or not, and a later read tells.
        """
        check_flip(entry, expected)
        after = pointer_after(entry, expected)
        data = encode_pointer(after)
        tag = None if expected is None else expected.tag
        for _ in range(FLIP_ATTEMPTS):
            written = await self._objects.put(POINTER, data, absent=tag is None, etag=tag)
            if written is not None:
                break
            now = await self.pointer()
            # The answer to a first try may have been lost, and the second has met its work.
            if now is not None and now.entries == after.entries:
                written = now.tag
                break
            if now is not None and now.tag != tag:
                raise moved(now.live)
        if written is None:
            raise StoreError(f"{POINTER} could not be written: it is gone, or others write to it without an end")
        await self._write_history(after.entries)
        return replace(after, tag=written)

    async def claim(self, claim: Claim) -> None:
        """Write or renew a claim."""
        await self._objects.put(_claim_key(claim.id), encode_claim(claim))

    async def release(self, claim_id: str) -> None:
        """End a claim; one that is not there is no error."""
        await self._objects.delete(_claim_key(claim_id))

    async def claims(self) -> Sequence[Claim]:
        """Every claim, expired ones included, sorted by id."""
        keys = [found.key for found in await self._objects.list(CLAIMS)]
        stored = await asyncio.gather(*(self._objects.get(key) for key in keys))
        found = [decode_claim(key, each.data) for key, each in zip(keys, stored, strict=True) if each is not None]
        return sorted(found, key=lambda claim: claim.id)

    async def _write_history(self, entries: Sequence[LiveEntry]) -> None:
        """Write down the flips of the pointer that the history does not have, those of others included.

        The flip has happened: what fails here, the next one makes up for.
        """
        try:
            before = history_key(max(0, entries[-1].sequence - 1))
            there = {found.key for found in await self._objects.list(HISTORY, start_after=before)}
            for entry in reversed(entries):
                key = history_key(entry.sequence)
                if key not in there:
                    await self._objects.put(key, encode_entry(entry), absent=True)
        except StoreError as error:
            _log.warning("flip %d is not in the history yet: %s", entries[0].sequence, error)


def _claim_key(claim_id: str) -> str:
    return f"{CLAIMS}{quote(claim_id, safe='')}.json"
