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
"""Another request for the same object or bucket was under way. Nothing was written, and whether a condition holds is not
known: https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html"""

CONFLICT_ATTEMPTS = 6
FIRST_CONFLICT_WAIT_S = 0.1
DIGEST = "sha256"
"""The metadata that holds the SHA-256 of an object's whole content, in hexadecimal; S3's own checksum of an object that
came in parts is one of its parts' checksums."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An object's content with its ETag."""

    data: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class Listed:
    """An object without its content. `sha256` is empty where it is not known to be that of the content; `written_at` is in
    Unix seconds by the clock of S3, and None where it was not asked."""

    key: str
    etag: str
    size_bytes: int
    sha256: str = ""
    written_at: float | None = None


class _WriteConflictError(Exception):
    """S3 answered that another request was under way."""


class Objects:
    """One bucket. Every method raises `StoreError` where S3 does not answer, or refuses."""

    def __init__(self, clients: AwsClients, bucket: str) -> None:
        self.bucket = bucket
        self._clients = clients

    async def get(self, key: str, known_etag: str | None = None) -> Stored | None:
        """An object; None where there is none. Where its ETag is still `known_etag`, its content is not sent, and empty."""

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

        return await self._call(f"object {key}", work, NOT_THERE)

    async def head(self, key: str) -> Listed | None:
        """An object without its content; None where there is none."""

        def work(s3: Any) -> Listed | None:
            found = s3.head_object(Bucket=self.bucket, Key=key, ChecksumMode="ENABLED")
            said = found.get("Metadata", {}).get(DIGEST, "")
            # Metadata is what the writer says. Of an object that came whole, S3 has checked the same by itself; one that
            # came in parts, which the ETag tells, has a checksum of its parts' checksums.
            is_right = "-" in found["ETag"] or found.get("ChecksumSHA256") == _base64(said)
            return Listed(key, found["ETag"], found["ContentLength"], said if is_right else "")

        return await self._call(f"object {key}", work, NOT_THERE)

    async def put(
        self,
        key: str,
        data: bytes,
        *,
        absent: bool = False,
        etag: str | None = None,
        content_type: str = "application/json",
    ) -> str | None:
        """Write an object whole; its ETag, or None where the condition was not met.

        None does not say who met the condition: after an answer that was lost, the client sends the request again, which
        then finds the work of the first. So what is there decides.

        Args:
            key: where.
            data: the content; S3 refuses it where it does not arrive as it was sent.
            absent: only where there is no object yet.
            etag: only where the object has this ETag.
            content_type: its media type.
        """
        digest = sha256(data).hexdigest()

        def work(s3: Any) -> str | None:
            written = s3.put_object(
                Bucket=self.bucket,
                Key=key,
                Body=data,
                ContentType=content_type,
                ChecksumAlgorithm="SHA256",
                ChecksumSHA256=_base64(digest),
                Metadata={DIGEST: digest},
                **condition(absent, etag),
            )
            return str(written["ETag"])

        return await self._call(f"writing {key}", work, UNMET | (NOT_THERE if etag else frozenset()))

    async def put_once(
        self, key: str, data: bytes, is_damaged: Callable[[bytes], bool], content_type: str = "application/json"
    ) -> bytes:
        """Write an object that never changes, or replace one that `is_damaged`; what is there now, which was read unless it
        was written here. Where it is not `data`, somebody wrote something else before.

        Raises:
            StoreError: S3 did not answer, or the object is neither there nor can be written.
        """
        etag = None
        for _ in range(CONFLICT_ATTEMPTS):
            if await self.put(key, data, absent=etag is None, etag=etag, content_type=content_type) is not None:
                return data
            there = await self.get(key)
            if there is not None and (there.data == data or not is_damaged(there.data)):
                return there.data
            etag = None if there is None else there.etag
        raise StoreError(
            f"{key} of bucket {self.bucket} could not be written: S3 says that it is there, and that it is not; run the "
            "command again"
        )

    async def list(self, prefix: str, start_after: str = "") -> Sequence[Listed]:
        """All objects whose keys begin with `prefix`, sorted; those after the key `start_after`."""

        def work(s3: Any) -> Sequence[Listed]:
            pages = s3.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=prefix, StartAfter=start_after
            )
            return [
                Listed(found["Key"], found["ETag"], found["Size"], written_at=found["LastModified"].timestamp())
                for page in pages
                for found in page.get("Contents", ())
            ]

        return await self._call(f"the list of {prefix}", work) or ()

    async def older_versions(self, key: str, most: int) -> Sequence[bytes]:
        """What an object was before, newest first, where the bucket keeps versions; `most` of them."""

        def work(s3: Any) -> Sequence[bytes]:
            listed = s3.list_object_versions(Bucket=self.bucket, Prefix=key).get("Versions", ())
            versions = [each["VersionId"] for each in listed if each["Key"] == key and each["VersionId"] != "null"]
            return [
                s3.get_object(Bucket=self.bucket, Key=key, VersionId=each)["Body"].read() for each in versions[:most]
            ]

        return await self._call(f"the versions of {key}", work) or ()

    async def delete(self, key: str) -> None:
        """Delete an object; one that is not there is no error."""
        await self._call(f"deleting {key}", lambda s3: s3.delete_object(Bucket=self.bucket, Key=key))

    async def call(self, what: str, work: Callable[[Any], T]) -> T | None:
        """Run `work` with the client in a thread; None where a condition of it was not met, or what it is about is not there.
        Where another request for the object is under way, `work` runs again."""
        return await self._call(what, work, UNMET | NOT_THERE | {"NoSuchUpload"})

    async def _call(self, what: str, work: Callable[[Any], T | None], empty: frozenset[str] = frozenset()) -> T | None:
        for attempt in range(CONFLICT_ATTEMPTS):
            try:
                return await self._try(what, work, empty)
            except _WriteConflictError:
                # Full jitter, so that the writers do not meet again.
                await asyncio.sleep(random.uniform(0, FIRST_CONFLICT_WAIT_S * 2**attempt))  # noqa: S311  # no secret
        raise StoreError(
            f"{what} of bucket {self.bucket}: S3 answered {CONFLICT_ATTEMPTS} times that another request writes the same "
            "object; run the command again"
        )

    async def _try(self, what: str, work: Callable[[Any], T | None], empty: frozenset[str]) -> T | None:
        def guarded(s3: Any) -> T | None:
            from botocore.exceptions import ClientError

            try:
                return work(s3)
            except ClientError as error:
                if error_code(error) == "NoSuchBucket":
                    raise StoreError(f"there is no bucket {self.bucket!r}; create it, or name another") from error
                if error_code(error) in empty:
                    return None
                if error_code(error) in CONFLICT:
                    raise _WriteConflictError from error
                raise

        return await self._clients.call("s3", f"{what} of bucket {self.bucket}", guarded)


def condition(absent: bool, etag: str | None) -> dict[str, str]:
    """The arguments of a write that must meet a condition."""
    return {**({"IfNoneMatch": "*"} if absent else {}), **({"IfMatch": etag} if etag is not None else {})}


def _base64(digest: str) -> str:
    try:
        return b64encode(bytes.fromhex(digest)).decode()
    except ValueError:
        return ""
