"""Bundles, assignments, claims and the one pointer in S3."""

from __future__ import annotations

import asyncio
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
from tidegate.aws.unit_push import run_all
from tidegate.errors import BundleError, StoreError
from tidegate.ports import Claim, LiveEntry, ModelLoad, Pointer
from tidegate.ports.store_rules import HISTORY_ENTRIES, check_flip, moved, pointer_after, replaced_assignment
from tidegate.rules.bundle import revision_of

FLIP_ATTEMPTS = 3
OLDER_VERSIONS = 10
LONGEST_CLAIM_S = 3600.0
"""No claim is written for longer: one that says so is damaged."""


class S3BundleStore:
    """A `BundleStore` in a bucket. Every method may raise `StoreError`: S3 did not answer, or refused."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._flips: dict[tuple[str, str], LiveEntry] = {}

    async def pointer(self, known: Pointer | None = None) -> Pointer | None:
        """The pointer; None where there is none, and `known` itself where it is still that.

        Raises:
            StoreError: it is damaged.
        """
        stored = await self._objects.get(POINTER, None if known is None else known.tag)
        if stored is None:
            return None
        if known is not None and stored.etag == known.tag:
            return known
        return decode_pointer(stored.data, stored.etag)

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
        """Store a bundle; its revision. Storing what is there already changes nothing, but replaces a damaged one."""
        revision = revision_of(data)
        await self._objects.put_once(
            bundle_key(revision), data, lambda there: there != data, content_type="application/octet-stream"
        )
        return revision

    async def put_assignment(self, revision: str, plans: Mapping[str, Sequence[ModelLoad]]) -> None:
        """Store what each shard must hold for a revision. It never changes, but a damaged one is replaced.

        Raises:
            StoreError: another assignment of the revision is there.
        """
        data = encode_assignment(revision, plans)
        there = await self._objects.put_once(
            assignment_key(revision), data, undecodable(partial(decode_assignment, revision))
        )
        if there != data:
            raise StoreError(f"another assignment of revision {revision[:12]} is there, and never changes")

    async def replace_assignment(
        self, revision: str, before: Mapping[str, Sequence[ModelLoad]], plans: Mapping[str, Sequence[ModelLoad]]
    ) -> None:
        """Store what each shard must hold for a revision in place of `before`: see `BundleStore.replace_assignment`.

        Raises:
            StoreError: what is there is not `before`.
        """
        key, data = assignment_key(revision), encode_assignment(revision, plans)
        there = await self._objects.get(key)
        if there is None or there.data != encode_assignment(revision, before):
            raise replaced_assignment(revision)
        if await self._objects.put(key, data, etag=there.etag) is None:
            now = await self._objects.get(key)
            if now is None or now.data != data:
                raise replaced_assignment(revision)

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
            raise StoreError(
                f"{POINTER} could not be written: it is gone, or others write to it without an end; see `tidegate status`"
            )
        return replace(after, tag=written)

    async def flips(self, *, all_traces: bool = False) -> Sequence[LiveEntry]:
        """See `BundleStore.flips`."""
        listed = (await self._objects.list(HISTORY))[-HISTORY_ENTRIES:]
        await run_all(self._read_flip(found) for found in listed if (found.key, found.etag) not in self._flips)
        flips = [self._flips.get((found.key, found.etag)) for found in listed]
        if listed and not any(flips) and not all_traces:
            raise StoreError(f"none of the {len(listed)} flips in {HISTORY} can be decoded")
        traces = await self._older_pointer() if all_traces else ()
        found = {entry.sequence: entry for entry in (*(each for each in flips if each is not None), *traces)}
        return [found[sequence] for sequence in sorted(found)]

    async def restore(self, pointer: Pointer) -> Pointer:
        """See `BundleStore.restore`."""
        damaged = await self._objects.get(POINTER)
        if damaged is not None and not undecodable(partial(decode_pointer, tag=""))(damaged.data):
            raise moved(decode_pointer(damaged.data, damaged.etag).live)
        etag = None if damaged is None else damaged.etag
        written = await self._objects.put(POINTER, encode_pointer(pointer), absent=etag is None, etag=etag)
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
        """The flips of the newest version of the pointer that can be decoded, where the bucket has versions."""
        try:
            for data in await self._objects.older_versions(POINTER, OLDER_VERSIONS):
                if not undecodable(partial(decode_pointer, tag=""))(data):
                    return decode_pointer(data, "").entries
        except StoreError:
            # Not everybody may read versions; the history is what everybody has.
            return ()
        return ()

    async def record(self, pointer: Pointer) -> None:
        """Write the flips that the pointer remembers and the history does not have, those of others included.

        Raises:
            StoreError: S3 did not answer, or another flip of the same number is in the history.
        """
        entries = pointer.entries
        before = history_key(max(0, entries[-1].sequence - 1))
        there = {found.key for found in await self._objects.list(HISTORY, start_after=before)}
        for entry in reversed(entries):
            key = history_key(entry.sequence)
            # The newest may meet another flip by its number, where the pointer was set back.
            if key in there and entry is not entries[0]:
                continue
            written = await self._objects.put_once(key, encode_entry(entry), undecodable(decode_entry))
            if decode_entry(written) != entry:
                raise StoreError(
                    f"{key} holds another flip than the pointer has by that number; keep a copy of it, and delete it"
                )

    async def claim(self, claim: Claim) -> None:
        """Write or renew a claim."""
        await self._objects.put(_claim_key(claim.id), encode_claim(claim))

    async def release(self, claim_id: str) -> None:
        """End a claim; one that is not there is no error."""
        await self._objects.delete(claim_id if claim_id.startswith(CLAIMS) else _claim_key(claim_id))

    async def claims(self) -> Sequence[Claim]:
        """Every claim, those included that are expired or damaged, sorted by id."""
        listed = await self._objects.list(CLAIMS)
        stored = await asyncio.gather(*(self._objects.get(found.key) for found in listed))
        found = [_claim(there, each.data) for there, each in zip(listed, stored, strict=True) if each is not None]
        return sorted(found, key=lambda claim: claim.id)


def _claim(listed: Listed, data: bytes) -> Claim:
    """A claim from its object. The id of a damaged one is its key where that was made from no id."""
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
        claim_id if _claim_key(claim_id) == listed.key else listed.key, "", "somebody", written_at, damaged=damage
    )


def _claim_key(claim_id: str) -> str:
    return f"{CLAIMS}{quote(claim_id, safe='')}.json"
