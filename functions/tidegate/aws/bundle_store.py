"""Bundles, assignments, claims and the one pointer in S3."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from urllib.parse import quote, unquote

from tidegate.aws.formats import (
    decode_assignment,
    decode_claim,
    decode_entry,
    decode_pointer,
    encode_assignment,
    encode_claim,
    encode_entry,
    encode_pointer,
    undecodable,
)
from tidegate.aws.layout import CLAIMS, HISTORY, POINTER, assignment_key, bundle_key, history_key
from tidegate.aws.objects import Listed, Objects
from tidegate.errors import BundleError, StoreError
from tidegate.ports import Claim, LiveEntry, ModelLoad, Pointer
from tidegate.ports.store_rules import HISTORY_ENTRIES, check_flip, moved, pointer_after, replaced_assignment
from tidegate.rules.bundle import revision_of, short_revision
from tidegate.tasks import run_all

FLIP_ATTEMPTS = 3
OLDER_VERSIONS = 10
LONGEST_CLAIM_S = 3600.0
"""A claim that lasts for longer is damaged."""


class S3BundleStore:
    """A `BundleStore` in a bucket."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._flips: dict[tuple[str, str], LiveEntry] = {}

    async def pointer(self, known: Pointer | None = None) -> Pointer | None:
        stored = await self._objects.get(POINTER, None if known is None else known.tag)
        if stored is None:
            return None
        if known is not None and stored.etag == known.tag:
            return known
        return decode_pointer(stored.data, stored.etag)

    async def bundle(self, revision: str) -> bytes:
        stored = await self._objects.get(bundle_key(revision))
        if stored is None:
            raise BundleError(
                f"there is no bundle of revision {short_revision(revision)} in bucket {self._objects.bucket}"
            )
        if revision_of(stored.data) != revision:
            raise BundleError(f"the bundle of revision {short_revision(revision)} is damaged: its digest is another")
        return stored.data

    async def put_bundle(self, data: bytes) -> str:
        """Store a bundle, in place of a damaged one too, and return its revision."""
        revision = revision_of(data)
        await self._objects.put_once(
            bundle_key(revision), data, lambda there: there != data, content_type="application/octet-stream"
        )
        return revision

    async def put_assignment(self, revision: str, plans: Mapping[str, Sequence[ModelLoad]]) -> None:
        data = encode_assignment(revision, plans)
        there = await self._objects.put_once(
            assignment_key(revision), data, undecodable(partial(decode_assignment, revision))
        )
        if there != data:
            raise StoreError(f"another assignment of revision {short_revision(revision)} is there, and never changes")

    async def replace_assignment(
        self, revision: str, before: Mapping[str, Sequence[ModelLoad]], plans: Mapping[str, Sequence[ModelLoad]]
    ) -> None:
        key, data = assignment_key(revision), encode_assignment(revision, plans)
        there = await self._objects.get(key)
        if there is None or there.data != encode_assignment(revision, before):
            raise replaced_assignment(revision)
        if await self._objects.put_over(key, data, there.etag) is None:
            now = await self._objects.get(key)
            if now is None or now.data != data:
                raise replaced_assignment(revision)

    async def assignment(self, revision: str) -> Mapping[str, tuple[ModelLoad, ...]]:
        stored = await self._objects.get(assignment_key(revision))
        if stored is None:
            raise BundleError(
                f"there is no assignment of revision {short_revision(revision)} in bucket {self._objects.bucket}"
            )
        try:
            return decode_assignment(revision, stored.data)
        except StoreError as error:
            raise BundleError(str(error)) from error

    async def flip(self, entry: LiveEntry, expected: Pointer | None) -> Pointer:
        check_flip(entry, expected)
        after = pointer_after(entry, expected)
        data = encode_pointer(after)
        tag = None if expected is None else expected.tag
        for _ in range(FLIP_ATTEMPTS):
            written = await self._objects.put_over(POINTER, data, tag)
            if written is not None:
                break
            now = await self.pointer()
            # The answer to a first try may have been lost, so that the second met its object.
            if now is not None and now.entries == after.entries:
                written = now.tag
                break
            if now is not None and now.tag != tag:
                raise moved(now.live)
        if written is None:
            raise StoreError(
                f"{POINTER} could not be written: it is gone, or others keep writing to it; see `tidegate status`"
            )
        return replace(after, tag=written)

    async def flips(self, *, all_traces: bool = False) -> Sequence[LiveEntry]:
        listed = (await self._objects.list(HISTORY))[-HISTORY_ENTRIES:]
        await run_all(self._read_flip(found) for found in listed if (found.key, found.etag) not in self._flips)
        flips = [self._flips.get((found.key, found.etag)) for found in listed]
        if listed and not any(flips) and not all_traces:
            raise StoreError(f"none of the {len(listed)} flips in {HISTORY} can be decoded")
        traces = await self._older_pointer() if all_traces else ()
        found = {entry.sequence: entry for entry in (*(each for each in flips if each is not None), *traces)}
        return [found[sequence] for sequence in sorted(found)]

    async def restore(self, pointer: Pointer) -> Pointer:
        damaged = await self._objects.get(POINTER)
        if damaged is not None and not undecodable(partial(decode_pointer, tag=""))(damaged.data):
            raise moved(decode_pointer(damaged.data, damaged.etag).live)
        etag = None if damaged is None else damaged.etag
        written = await self._objects.put_over(POINTER, encode_pointer(pointer), etag)
        if written is not None:
            return replace(pointer, tag=written)
        now = await self.pointer()
        if now is None:
            raise StoreError(f"{POINTER} could not be written; try again in a moment")
        if now.entries != pointer.entries:
            raise moved(now.live)
        return now

    async def _read_flip(self, found: Listed) -> None:
        stored = await self._objects.get(found.key)
        if stored is not None:
            with contextlib.suppress(StoreError):
                self._flips[found.key, found.etag] = decode_entry(stored.data)

    async def _older_pointer(self) -> Sequence[LiveEntry]:
        """Return the flips of the newest version of the pointer that can be decoded, if the bucket keeps versions."""
        try:
            for data in await self._objects.older_versions(POINTER, OLDER_VERSIONS):
                if not undecodable(partial(decode_pointer, tag=""))(data):
                    return decode_pointer(data, "").entries
        except StoreError:
            # Not every role may read versions; all may read the history.
            pass
        return ()

    async def record(self, pointer: Pointer) -> None:
        entries = pointer.entries
        before = history_key(max(0, entries[-1].sequence - 1))
        there = {found.key for found in await self._objects.list(HISTORY, start_after=before)}
        for entry in reversed(entries):
            key = history_key(entry.sequence)
            # After the pointer was set back, the newest may have the number of another flip.
            if key in there and entry is not entries[0]:
                continue
            written = await self._objects.put_once(key, encode_entry(entry), undecodable(decode_entry))
            if decode_entry(written) != entry:
                raise StoreError(
                    f"{key} holds another flip than the pointer has by that number; keep a copy of it, and delete it"
                )

    async def claim(self, claim: Claim) -> None:
        await self._objects.put(_claim_key(claim.id), encode_claim(claim))

    async def release(self, claim_id: str) -> None:
        await self._objects.delete(claim_id if claim_id.startswith(CLAIMS) else _claim_key(claim_id))

    async def claims(self) -> Sequence[Claim]:
        listed = await self._objects.list(CLAIMS)
        stored = await run_all(self._objects.get(found.key) for found in listed)
        found = [_claim(there, each.data) for there, each in zip(listed, stored, strict=True) if each is not None]
        return sorted(found, key=lambda claim: claim.id)


def _claim(listed: Listed, data: bytes) -> Claim:
    """Decode a claim. The id of a damaged one is its key if no id has that key."""
    written_at = listed.written_at or 0.0
    try:
        claim = decode_claim(listed.key, data)
        if claim.expires_at <= written_at + LONGEST_CLAIM_S and _claim_key(claim.id) == listed.key:
            return claim
        damage = f"the claim {listed.key} is damaged: it is another's, or lasts for longer than any"
    except StoreError as error:
        damage = str(error)
    claim_id = unquote(listed.key.removeprefix(CLAIMS).removesuffix(".json"))
    return Claim(
        claim_id if _claim_key(claim_id) == listed.key else listed.key, None, "somebody", written_at, damaged=damage
    )


def _claim_key(claim_id: str) -> str:
    return f"{CLAIMS}{quote(claim_id, safe='')}.json"
