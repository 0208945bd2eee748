"""The live bundle read from S3 without boto3, for functions that start cold."""

from __future__ import annotations

import asyncio

from tidegate.aws.formats import decode_pointer
from tidegate.aws.layout import POINTER, bundle_key
from tidegate.aws.wire import Wire, WireResponse
from tidegate.errors import BundleError, StoreError
from tidegate.ports import Pointer
from tidegate.rules.bundle import revision_of

NO_BUCKET = b"<Code>NoSuchBucket</Code>"


class WireBundleSource:
    """A `BundleSource` over one kept connection to S3.

    Args:
        wire: signed HTTP to S3.
        bucket: the bucket of the bundle store; it is named in the path, as every endpoint takes it there.
    """

    def __init__(self, wire: Wire, bucket: str) -> None:
        self._wire = wire
        self._bucket = bucket

    async def pointer(self, known: Pointer | None = None) -> Pointer | None:
        """See `BundleSource.pointer`."""
        return await asyncio.to_thread(self.read_pointer, known)

    async def bundle(self, revision: str) -> bytes:
        """See `BundleSource.bundle`."""
        return await asyncio.to_thread(self.read_bundle, revision)

    def read_pointer(self, known: Pointer | None = None) -> Pointer | None:
        """`pointer`, for who has no event loop yet."""
        response = self._get(POINTER, {} if known is None else {"if-none-match": known.tag})
        if response.status == 304:
            return known
        if response.status == 404 and NO_BUCKET not in response.body:
            return None
        return decode_pointer(self._content(response, "the pointer to the live revision"), response.headers["etag"])

    def read_bundle(self, revision: str) -> bytes:
        """`bundle`, for who has no event loop yet."""
        response = self._get(bundle_key(revision), {})
        if response.status == 404:
            raise BundleError(f"there is no bundle of revision {revision[:12]}; publish it again")
        data = self._content(response, f"the bundle of revision {revision[:12]}")
        if revision_of(data) != revision:
            raise BundleError(f"the bundle of revision {revision[:12]} is damaged: its digest is another")
        return data

    def _get(self, key: str, headers: dict[str, str]) -> WireResponse:
        return self._wire.send("GET", f"/{self._bucket}/{key}", headers=headers)

    def _content(self, response: WireResponse, what: str) -> bytes:
        if NO_BUCKET in response.body and response.status == 404:
            raise StoreError(f"there is no bucket {self._bucket!r}; create it, or name another in TIDEGATE_BUCKET")
        if response.status != 200:
            raise StoreError(f"{what} cannot be read: S3 answered {response.status}")
        return response.body
