"""What the environments of the function `shadow` know in common: which messages were carried out, and which shadows are paused.

Both are items of the registry's table that expire, in the partition of the function. Powertools' Idempotency would write twice for
each message, to keep a result that nobody reads.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

from tidegate.aws.clients import AwsClients, error_code
from tidegate.aws.layout import EXPIRY, ONCE, PARTITION_KEY, SORT_KEY
from tidegate.errors import StoreError
from tidegate.ports import ShadowPause

PARTITION = f"{ONCE}shadow"
KEPT_S = 2 * 3600
"""How long a message is known: longer than a queue keeps it."""

_KNOWN = "ConditionalCheckFailedException"


class ShadowClaims:
    """A `ShadowPauses`, and the messages that were carried out. Every method raises `StoreError` where the table does not answer.

    Args:
        clock: Unix time in seconds.
    """

    def __init__(self, clients: AwsClients, table: str, clock: Callable[[], float] = time.time) -> None:
        self._clients = clients
        self._table = table
        self._clock = clock

    async def claim(self, message_id: str) -> bool:
        """Take a message; return False if it was taken before."""
        by = {"S": os.urandom(8).hex()}
        return await self._changed(
            "put_item",
            Item={**_key(f"message#{message_id}"), EXPIRY: _whole(self._clock() + KEPT_S), "by": by},
            # The client sends a call again whose answer was lost.
            ConditionExpression=f"attribute_not_exists({PARTITION_KEY}) OR #by = :by",
            ExpressionAttributeNames={"#by": "by"},
            ExpressionAttributeValues={":by": by},
        )

    async def is_claimed(self, message_id: str) -> bool:
        found = await self._call("get_item", Key=_key(f"message#{message_id}"), ConsistentRead=True)
        return "Item" in found

    async def pause_of(self, shadow: str) -> ShadowPause | None:
        found = (await self._call("get_item", Key=_key(f"pause#{shadow}"))).get("Item")
        if found is None:
            return None
        return ShadowPause(int(found["failures"]["N"]), float(found["until"]["N"]))

    async def pause(self, shadow: str, pause: ShadowPause) -> None:
        item = {
            **_key(f"pause#{shadow}"),
            "failures": _whole(pause.failures),
            "until": {"N": repr(pause.until)},
            EXPIRY: _whole(pause.until + KEPT_S),
        }
        await self._call("put_item", Item=item)

    async def try_again(self, shadow: str, pause: ShadowPause, until: float) -> bool:
        return await self._changed(
            "update_item",
            Key=_key(f"pause#{shadow}"),
            UpdateExpression="SET #until = :until",
            ConditionExpression="#until = :seen",
            ExpressionAttributeNames={"#until": "until"},
            ExpressionAttributeValues={":until": {"N": repr(until)}, ":seen": {"N": repr(pause.until)}},
        )

    async def resume(self, shadow: str) -> None:
        await self._call("delete_item", Key=_key(f"pause#{shadow}"))

    async def _changed(self, operation: str, **arguments: Any) -> bool:
        try:
            await self._call(operation, **arguments)
        except StoreError as error:
            if error_code(error.__cause__) != _KNOWN:
                raise
            return False
        return True

    async def _call(self, operation: str, **arguments: Any) -> Mapping[str, Any]:
        def work(dynamodb: Any) -> Mapping[str, Any]:
            answer: Mapping[str, Any] = getattr(dynamodb, operation)(TableName=self._table, **arguments)
            return answer

        return await self._clients.call("dynamodb", f"table {self._table}", work)


def _key(name: str) -> dict[str, Any]:
    return {PARTITION_KEY: {"S": PARTITION}, SORT_KEY: {"S": name}}


def _whole(number: float) -> dict[str, str]:
    return {"N": str(int(number))}
