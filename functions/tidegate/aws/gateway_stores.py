"""The stores as a gateway uses them: without boto3, whose import would delay a cold start."""

from __future__ import annotations

import asyncio
import json

from tidegate.aws.formats import decode_pointer
from tidegate.aws.layout import POINTER, bundle_key
from tidegate.aws.registry import gateway_item
from tidegate.aws.wire import Wire, WireResponse
from tidegate.errors import BundleError, StoreError
from tidegate.ports import GatewayReport, Pointer
from tidegate.ports.store_rules import SILENCE_S
from tidegate.rules.bundle import revision_of, short_revision

NO_BUCKET = b"<Code>NoSuchBucket</Code>"


class WireBundleSource:
    """A `BundleSource` over one kept connection to S3. The bucket is in the path, which every endpoint accepts."""

    def __init__(self, wire: Wire, bucket: str) -> None:
        self._wire = wire
        self._bucket = bucket

    async def pointer(self, known: Pointer | None = None) -> Pointer | None:
        return await asyncio.to_thread(self.read_pointer, known)

    async def bundle(self, revision: str) -> bytes:
        return await asyncio.to_thread(self.read_bundle, revision)

    def read_pointer(self, known: Pointer | None = None) -> Pointer | None:
        response = self._get(POINTER, {} if known is None else {"if-none-match": known.tag})
        if response.status == 304:
            return known
        if response.status == 404 and NO_BUCKET not in response.body:
            return None
        return decode_pointer(self._content(response, "the pointer to the live revision"), response.headers["etag"])

    def read_bundle(self, revision: str) -> bytes:
        response = self._get(bundle_key(revision), {})
        if response.status == 404:
            raise BundleError(f"there is no bundle of revision {short_revision(revision)}; publish it again")
        data = self._content(response, f"the bundle of revision {short_revision(revision)}")
        if revision_of(data) != revision:
            raise BundleError(f"the bundle of revision {short_revision(revision)} is damaged: its digest is another")
        return data

    def _get(self, key: str, headers: dict[str, str]) -> WireResponse:
        return self._wire.send("GET", f"/{self._bucket}/{key}", headers=headers)

    def _content(self, response: WireResponse, what: str) -> bytes:
        if NO_BUCKET in response.body and response.status == 404:
            raise StoreError(f"there is no bucket {self._bucket!r}; create it, or name another in TIDEGATE_BUCKET")
        if response.status != 200:
            raise StoreError(f"{what} cannot be read: S3 answered {response.status}")
        return response.body


class WireGatewayReports:
    """`GatewayReports` by DynamoDB's HTTP API
    (https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.LowLevelAPI.html)."""

    def __init__(self, wire: Wire, table: str, timeout_s: float = SILENCE_S) -> None:
        self._wire = wire
        self._table = table
        self._timeout_s = timeout_s

    async def report(self, gateway: GatewayReport) -> None:
        body = json.dumps({"TableName": self._table, "Item": gateway_item(gateway, self._timeout_s)}).encode()
        headers = {"content-type": "application/x-amz-json-1.0", "x-amz-target": "DynamoDB_20120810.PutItem"}
        response = await asyncio.to_thread(self._wire.send, "POST", "/", None, headers, body)
        if response.status != 200:
            raise StoreError(f"the registry's table {self._table} refused a report with {response.status}")
