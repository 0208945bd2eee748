"""A gateway's reports to the registry without boto3, for functions that start cold."""

from __future__ import annotations

import asyncio
import json

from tidegate.aws.registry import gateway_item
from tidegate.aws.wire import Wire
from tidegate.errors import StoreError
from tidegate.ports import GatewayReport
from tidegate.ports.store_rules import SILENCE_S


class WireGatewayReports:
    """Writes to the registry's table over one kept connection to DynamoDB.

    The protocol: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.LowLevelAPI.html
    """

    def __init__(self, wire: Wire, table: str, timeout_s: float = SILENCE_S) -> None:
        self._wire = wire
        self._table = table
        self._timeout_s = timeout_s

    async def report(self, gateway: GatewayReport) -> None:
        """See `Registry.report`."""
        body = json.dumps({"TableName": self._table, "Item": gateway_item(gateway, self._timeout_s)}).encode()
        headers = {"content-type": "application/x-amz-json-1.0", "x-amz-target": "DynamoDB_20120810.PutItem"}
        response = await asyncio.to_thread(self._wire.send, "POST", "/", None, headers, body)
        if response.status != 200:
            raise StoreError(f"the registry's table {self._table} refused a report with {response.status}")
