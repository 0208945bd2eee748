"""Sends a file to a bucket, whole or in parts, and checks its digest on the way."""

from __future__ import annotations

import asyncio
import contextlib
from base64 import b64encode
from collections.abc import Awaitable, Callable
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any, cast

from tidegate.aws.objects import DIGEST, Objects, condition
from tidegate.errors import ModelConfigError, StoreError
from tidegate.model_units import UnitFile, changed_meanwhile
from tidegate.tasks import first_failure

PART_BYTES = 16 * 1024 * 1024
"""Files above this are sent in parts of this size."""

CONCURRENCY = 8
"""How many files or parts are sent at a time."""

MEDIA_TYPE = "application/octet-stream"

Check = Callable[[], Awaitable[None]]
"""Raises `ConflictError` if another push took over."""

Sent = Callable[[int], None]
"""Callback with the number of bytes that have been sent since the last call."""


class Uploader:
    """Sends files for one push, a bounded number at a time."""

    def __init__(self, objects: Objects, part_bytes: int = PART_BYTES) -> None:
        self._objects = objects
        self._part_bytes = part_bytes
        self._slots = asyncio.Semaphore(CONCURRENCY)

    async def send(
        self, model: str, key: str, unit_file: UnitFile, *, etag: str | None, check_current: Check, sent: Sent
    ) -> str | None:
        """Send a file in place of the object with an ETag, or (None) where there is none. Return the new ETag, or None if the
        condition was not met. `check_current` is called before parts, which take time to send, become the object.

        Raises:
            ModelConfigError: the file changed since its digest was taken, or cannot be read.
        """
        if unit_file.file.size_bytes > self._part_bytes:
            return await self._send_parts(model, key, unit_file, etag, check_current, sent)
        async with self._slots:
            data = await asyncio.to_thread(unit_file.read, model)
            written = await self._objects.put_over(key, data, etag, MEDIA_TYPE)
        if written is not None:
            sent(len(data))
        return written

    async def _send_parts(
        self, model: str, key: str, unit_file: UnitFile, etag: str | None, check_current: Check, sent: Sent
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
            await check_current()
            # The condition belongs to the last call, which makes the object.
            made = await self._objects.call(
                f"writing {key}",
                lambda s3: s3.complete_multipart_upload(**where, MultipartUpload={"Parts": parts}, **condition(etag)),
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
        """Send every part. Return the parts for `complete_multipart_upload`, and the digest of the whole."""
        digest = sha256()
        with source.open("rb") as opened, first_failure():
            async with asyncio.TaskGroup() as group:
                sending = []
                for number in count(1):
                    await self._slots.acquire()
                    data = await asyncio.to_thread(opened.read, self._part_bytes)
                    if not data:
                        self._slots.release()
                        break
                    digest.update(data)
                    sending.append(group.create_task(self._send_part(where, number, data, sent)))
        return [part.result() for part in sending], digest.hexdigest()

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
        # If this fails too, the bucket's lifecycle rule removes the parts.
        with contextlib.suppress(StoreError):
            await self._objects.call(f"ending {where['Key']}", lambda s3: s3.abort_multipart_upload(**where))

    async def _call(self, what: str, work: Callable[[Any], Any]) -> dict[str, Any]:
        answer = await self._objects.call(what, work)
        if answer is None:
            raise StoreError(f"{what}: the upload is gone; push again")
        return cast("dict[str, Any]", answer)
