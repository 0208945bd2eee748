"""The objects of one bucket, with the conditions that two writers need."""

from __future__ import annotations

import asyncio
import random
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, TypeVar

from tidegate.aws.clients import AwsClients, error_code
from tidegate.errors import StoreError

T = TypeVar("T")

NOT_THERE = frozenset({"NoSuchKey", "404", "NotFound"})
NOT_MODIFIED = frozenset({"304", "NotModified"})
UNMET = frozenset({"PreconditionFailed", "412"})
CONFLICT = frozenset({"ConditionalRequestConflict", "OperationAborted", "409"})
"""Another request for the same object or bucket was under way: nothing was written, and the condition was not checked
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html)."""

JSON = "application/json"

CONFLICT_ATTEMPTS = 6
FIRST_CONFLICT_WAIT_S = 0.1
DIGEST = "sha256"
"""Metadata with the SHA-256 of an object's content in hexadecimal. S3's own checksum of an object that was sent in parts is
one of the parts' checksums."""


@dataclass(frozen=True, slots=True)
class Stored:
    data: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class Listed:
    """An object without its content. `sha256` is None unless it is known to be right; `written_at` is in Unix seconds by the
    clock of S3, where that was asked for."""

    key: str
    etag: str
    size_bytes: int
    sha256: str | None = None
    written_at: float | None = None


class Objects:
    """One bucket. Every method may raise `StoreError`: S3 did not answer, or refused."""

    def __init__(self, clients: AwsClients, bucket: str) -> None:
        self.bucket = bucket
        self._clients = clients

    async def get(self, key: str, known_etag: str | None = None) -> Stored | None:
        """Return an object, or None. While its ETag is `known_etag`, its content is not sent and empty."""

        def work(s3: Any) -> Stored | None:
            from botocore.exceptions import ClientError

            condition = {} if known_etag is None else {"IfNoneMatch": known_etag}
            try:
                found = s3.get_object(Bucket=self.bucket, Key=key, **condition)
            except ClientError as error:
                if known_etag is not None and error_code(error) in NOT_MODIFIED:
                    return Stored(b"", known_etag)
                raise
            return Stored(found["Body"].read(), found["ETag"])

        return await self.call(f"object {key}", work, NOT_THERE)

    async def head(self, key: str) -> Listed | None:
        """Return an object without its content, or None."""

        def work(s3: Any) -> Listed:
            found = s3.head_object(Bucket=self.bucket, Key=key, ChecksumMode="ENABLED")
            stated = found.get("Metadata", {}).get(DIGEST)
            # Anybody can write metadata. S3 has checked the same digest of an object that was sent whole; one that was sent
            # in parts, as its ETag shows, has a checksum of the parts' checksums.
            is_right = "-" in found["ETag"] or found.get("ChecksumSHA256") == _base64(stated or "")
            return Listed(key, found["ETag"], found["ContentLength"], stated if is_right else None)

        return await self.call(f"object {key}", work, NOT_THERE)

    async def put(self, key: str, data: bytes, content_type: str = JSON) -> str:
        """Write an object whatever is there, and return its ETag."""
        written = await self._put(key, data, content_type, {})
        assert written is not None
        return written

    async def put_over(self, key: str, data: bytes, etag: str | None, content_type: str = JSON) -> str | None:
        """Write an object in place of the one with an ETag, or (None) where there is none. Return its ETag, or None where the
        condition was not met.

        None does not mean that another writer was first: when an answer is lost, the client repeats the request, which then
        meets the object of the first try. Read the object to find out.
        """
        return await self._put(key, data, content_type, condition(etag))

    async def _put(self, key: str, data: bytes, content_type: str, condition: dict[str, str]) -> str | None:
        digest = sha256(data).hexdigest()

        def work(s3: Any) -> str:
            written = s3.put_object(
                Bucket=self.bucket,
                Key=key,
                Body=data,
                ContentType=content_type,
                ChecksumAlgorithm="SHA256",
                ChecksumSHA256=_base64(digest),
                Metadata={DIGEST: digest},
                **condition,
            )
            return str(written["ETag"])

        empty = UNMET if condition else frozenset()
        return await self.call(f"writing {key}", work, empty | NOT_THERE if "IfMatch" in condition else empty)

    async def put_once(
        self, key: str, data: bytes, is_damaged: Callable[[bytes], bool], content_type: str = JSON
    ) -> bytes:
        """Write an object that never changes, or replace one that `is_damaged`. Return the object's content, which another
        writer may have written first.

        Raises:
            StoreError: also if the object neither exists nor can be written.
        """
        etag = None
        for _ in range(CONFLICT_ATTEMPTS):
            if await self.put_over(key, data, etag, content_type) is not None:
                return data
            there = await self.get(key)
            if there is not None and (there.data == data or not is_damaged(there.data)):
                return there.data
            etag = None if there is None else there.etag
        raise StoreError(
            f"{key} of bucket {self.bucket} could not be written: S3 contradicts itself about whether it exists; run "
            "the command again"
        )

    async def list(self, prefix: str, start_after: str = "") -> Sequence[Listed]:
        """Return the objects below a prefix whose keys come after `start_after`, sorted by key."""

        def work(s3: Any) -> Sequence[Listed]:
            pages = s3.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=prefix, StartAfter=start_after
            )
            return [
                Listed(found["Key"], found["ETag"], found["Size"], written_at=found["LastModified"].timestamp())
                for page in pages
                for found in page.get("Contents", ())
            ]

        return await self.call(f"the list of {prefix}", work, frozenset()) or ()

    async def older_versions(self, key: str, most: int) -> Sequence[bytes]:
        """Return the contents of at most `most` versions of an object, newest first, if the bucket keeps versions."""

        def work(s3: Any) -> Sequence[bytes]:
            listed = s3.list_object_versions(Bucket=self.bucket, Prefix=key).get("Versions", ())
            versions = [each["VersionId"] for each in listed if each["Key"] == key and each["VersionId"] != "null"]
            return [
                s3.get_object(Bucket=self.bucket, Key=key, VersionId=each)["Body"].read() for each in versions[:most]
            ]

        return await self.call(f"the versions of {key}", work, frozenset()) or ()

    async def delete(self, key: str) -> None:
        """Delete an object, if it is there."""
        await self.call(f"deleting {key}", lambda s3: s3.delete_object(Bucket=self.bucket, Key=key), frozenset())

    async def call(
        self,
        what: str,
        work: Callable[[Any], T | None],
        empty: frozenset[str] = UNMET | NOT_THERE | {"NoSuchUpload"},
    ) -> T | None:
        """Run `work` with the client in a thread, again while another request for the object is under way. Return None after an
        error with one of the codes `empty`: by default, the condition was not met or the object is missing."""
        for attempt in range(CONFLICT_ATTEMPTS):
            try:
                return await self._clients.call("s3", f"{what} of bucket {self.bucket}", work)
            except StoreError as error:
                code = error_code(error.__cause__)
                if code in empty:
                    return None
                if code == "NoSuchBucket":
                    raise StoreError(f"there is no bucket {self.bucket!r}; create it, or name another") from error
                if code not in CONFLICT:
                    raise
            # Full jitter, so that the writers do not collide again.
            await asyncio.sleep(random.uniform(0, FIRST_CONFLICT_WAIT_S * 2**attempt))  # noqa: S311  # no secret
        raise StoreError(
            f"{what} of bucket {self.bucket}: S3 answered {CONFLICT_ATTEMPTS} times that another request writes the same "
            "object; run the command again"
        )


def condition(etag: str | None) -> dict[str, str]:
    """Return the arguments of a write in place of the object with an ETag, or (None) where there is none."""
    return {"IfNoneMatch": "*"} if etag is None else {"IfMatch": etag}


def _base64(digest: str) -> str:
    try:
        return b64encode(bytes.fromhex(digest)).decode()
    except ValueError:
        return ""
