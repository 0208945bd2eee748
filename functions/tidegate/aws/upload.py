"""Sends one file to a bucket: whole, or in parts where it is big, and checked against its digest on the way."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Awaitable, Callable
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any, cast

from tidegate.aws.objects import DIGEST, Objects, condition
from tidegate.errors import ModelConfigError, StoreError
from tidegate.ports.model_units import UnitFile, changed_meanwhile

PART_BYTES = 16 * 1024 * 1024
"""Files above this are sent in parts of this size; a part at a time is all that is held of a file."""

CONCURRENCY = 8
"""How many files or parts are sent at a time."""

MEDIA_TYPE = "application/octet-stream"

Stand = Callable[[], Awaitable[None]]
"""Raises `ConflictError` where another push took over."""

Sent = Callable[[int], None]
"""Callback with how many bytes more have been sent."""


class Uploader:
    """Sends files for one push, a bounded number at a time."""

    def __init__(self, objects: Objects, part_bytes: int = PART_BYTES) -> None:
        self._objects = objects
        self._part_bytes = part_bytes
        self._slots = asyncio.Semaphore(CONCURRENCY)

    async def send(
        self, model: str, key: str, unit_file: UnitFile, *, etag: str | None, stand: Stand, sent: Sent
    ) -> str | None:
        """Send a file to `key`, where there is no object yet, or one with this ETag.

        What comes in parts takes time, so `stand` is asked once more before they become the object.

        Returns:
            The ETag of the new object; None where the condition was not met and nothing changed.

        Raises:
            ModelConfigError: the file changed since its digest was taken, or cannot be read.
            StoreError: S3 did not answer, or refused.
        """
        if unit_file.file.size_bytes > self._part_bytes:
            return await self._send_parts(model, key, unit_file, etag, stand, sent)
        async with self._slots:
            data = await asyncio.to_thread(unit_file.read, model)
            written = await self._objects.put(key, data, absent=etag is None, etag=etag, content_type=MEDIA_TYPE)
        if written is not None:
            sent(len(data))
        return written

    async def _send_parts(
        self, model: str, key: str, unit_file: UnitFile, etag: str | None, stand: Stand, sent: Sent
    ) -> str | None:
        file, where = unit_file.file, {"Bucket": self._objects.bucket, "Key": key}
        begun = await self._call(
            f"writing {key}",
            lambda s3: s3.create_multipart_upload(
                **where, ContentType=MEDIA_TYPE, ChecksumAlgorithm="SHA256", Metadata={DIGEST: file.sha256}
            ),
        )
        where["UploadId"] = begun["UploadId"]
        try:
            parts, digest = await self._parts(where, cast("Path", unit_file.source), sent)
            if digest != file.sha256:
                raise changed_meanwhile(model, file.path)
            await stand()
            # The condition stands with the last call: it is the one that makes the object.
            made = await self._objects.call(
                f"writing {key}",
                lambda s3: s3.complete_multipart_upload(
                    **where, MultipartUpload={"Parts": parts}, **condition(etag is None, etag)
                ),
            )
        except OSError as error:
            await self._abort(where)
            raise ModelConfigError(f"{model}/{file.path} cannot be read: {error.strerror}") from error
        except BaseException:
            await self._abort(where)
            raise
        if made is None:
            await self._abort(where)
            return None
        return str(made["ETag"])

    async def _parts(self, where: dict[str, str], source: Path, sent: Sent) -> tuple[list[dict[str, Any]], str]:
        """Send every part; what completes the upload, in order, and the digest of the whole."""
        digest = sha256()
        under_way: list[asyncio.Task[dict[str, Any]]] = []
        with source.open("rb") as opened:
            try:
                for number in count(1):
                    await self._slots.acquire()
                    data = await asyncio.to_thread(opened.read, self._part_bytes)
                    if not data:
                        self._slots.release()
                        break
                    digest.update(data)
                    under_way.append(asyncio.create_task(self._send_part(where, number, data, sent)))
                return await asyncio.gather(*under_way), digest.hexdigest()
            finally:
                for task in under_way:
                    task.cancel()
                await asyncio.gather(*under_way, return_exceptions=True)

    async def _send_part(self, where: dict[str, str], number: int, data: bytes, sent: Sent) -> dict[str, Any]:
        checksum = b64encode(sha256(data).digest()).decode()
        try:
            part = await self._call(
                f"writing part {number} of {where['Key']}",
                lambda s3: s3.upload_part(
                    **where, PartNumber=number, Body=data, ChecksumAlgorithm="SHA256", ChecksumSHA256=checksum
                ),
            )
        finally:
            self._slots.release()
        sent(len(data))
        return {"PartNumber": number, "ETag": part["ETag"], "ChecksumSHA256": checksum}

    async def _abort(self, where: dict[str, str]) -> None:
        """Give the parts up; where that fails too, the bucket's lifecycle rule removes them."""
        try:
            await self._objects.call(f"ending {where['Key']}", lambda s3: s3.abort_multipart_upload(**where))
        except StoreError:
            return

    async def _call(self, what: str, work: Callable[[Any], Any]) -> dict[str, Any]:
        answer = await self._objects.call(what, work)
        if answer is None:
            raise StoreError(f"{what}: the upload is gone; push again")
        return cast("dict[str, Any]", answer)
