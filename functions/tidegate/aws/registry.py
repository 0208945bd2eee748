"""The registry of model servers and gateways in one DynamoDB table."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from tidegate.aws.clients import AwsClients, error_code
from tidegate.aws.layout import ENDPOINTS, EXPIRY, GATEWAYS, PARTITION_KEY, SORT_KEY
from tidegate.errors import StoreError
from tidegate.ports import Endpoint, GatewayReport, RegisteredEndpoint
from tidegate.ports.store_rules import SILENCE_S, by_address

T = TypeVar("T")
Item = Mapping[str, Mapping[str, str]]
"""An item, or a part of one, as DynamoDB's own calls have it: `{"port": {"N": "8000"}}`."""

WEDGED = "wedged"
REGISTER_ATTEMPTS = 3


class DynamoRegistry:
    """A `Registry` in a table. Every method may raise `StoreError`.

    Whoever gave no sign of life for `timeout_s` by `clock` (Unix seconds) is forgotten; DynamoDB removes its item later.
    """

    def __init__(
        self,
        clients: AwsClients,
        table: str,
        timeout_s: float = SILENCE_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._clients = clients
        self._table = table
        self._timeout_s = timeout_s
        self._clock = clock

    async def register(self, entry: RegisteredEndpoint) -> None:
        """Write or renew an endpoint. A server that renews itself does not take back `wedged` said by another."""
        key = _endpoint_key(entry.endpoint)
        fields = {
            "shard": {"S": entry.endpoint.shard},
            "host": {"S": entry.endpoint.host},
            "port": {"N": str(entry.endpoint.port)},
            **{
                name: {"N": str(port)}
                for name, port in (("grpc_port", entry.grpc_port), ("metrics_port", entry.metrics_port))
                if port is not None
            },
            **_life(entry.seen_at, self._timeout_s),
        }
        said = {"state": {"S": entry.state}, "note": {"S": entry.note}}
        not_wedged = {
            "ConditionExpression": "attribute_not_exists(#pk) OR #state <> :wedged OR #seen_at < :dead",
            "ExpressionAttributeNames": {"#pk": PARTITION_KEY, "#state": "state", "#seen_at": "seen_at"},
            "ExpressionAttributeValues": {":wedged": {"S": WEDGED}, ":dead": _number(self._clock() - self._timeout_s)},
        }
        for _ in range(REGISTER_ATTEMPTS):
            if entry.state == WEDGED:
                await self._call("put_item", Item={**key, **fields, **said})
                return
            if await self._call("put_item", Item={**key, **fields, **said}, **not_wedged) is not None:
                return
            if await self._update(
                key, fields, "attribute_exists(#pk) AND #state = :wedged", {":wedged": {"S": WEDGED}}
            ):
                return
        raise StoreError(f"table {self._table}: {entry.endpoint.url} changes without an end; try again")

    async def deregister(self, endpoint: Endpoint) -> None:
        """Forget an endpoint."""
        await self._call("delete_item", Key=_endpoint_key(endpoint))

    async def mark_wedged(self, endpoint: Endpoint, note: str) -> None:
        """Say that a load on an endpoint never ended; one that is not registered is left alone."""
        said = {"state": {"S": WEDGED}, "note": {"S": note}}
        await self._update(_endpoint_key(endpoint), said, "attribute_exists(#pk)", {})

    async def endpoints(self) -> Sequence[RegisteredEndpoint]:
        """Every endpoint that gave a sign of life within the time-out, sorted by shard and address."""
        items = await self._alive(ENDPOINTS)
        return sorted((self._read(item, _endpoint) for item in items), key=by_address)

    async def report(self, gateway: GatewayReport) -> None:
        """A gateway says which revision it serves."""
        await self._call("put_item", Item=gateway_item(gateway, self._timeout_s))

    async def gateways(self) -> Sequence[GatewayReport]:
        """Every gateway that gave a sign of life within the time-out, sorted by id."""
        items = await self._alive(GATEWAYS)
        return sorted((self._read(item, _gateway) for item in items), key=lambda gateway: gateway.id)

    async def _update(self, key: Item, fields: Item, condition: str, values: Item) -> bool:
        """Set attributes of an item, if `condition` (over `#pk` and `#state`) holds; whether it did."""
        names = {f"#f{number}": name for number, name in enumerate(fields)}
        used = {"#pk": PARTITION_KEY, "#state": "state"}
        done = await self._call(
            "update_item",
            Key=key,
            UpdateExpression="SET " + ", ".join(f"{name} = :{name[1:]}" for name in names),
            ConditionExpression=condition,
            ExpressionAttributeNames={**names, **{name: used[name] for name in used if name in condition}},
            ExpressionAttributeValues={**{f":{name[1:]}": fields[names[name]] for name in names}, **values},
        )
        return done is not None

    async def _alive(self, partition: str) -> list[Item]:
        def work(client: Any) -> list[Item]:
            return list(self._query(client, partition))

        return await self._clients.call("dynamodb", f"table {self._table}", self._guarded(work)) or []

    def _query(self, client: Any, partition: str) -> Iterator[Item]:
        pages = client.get_paginator("query").paginate(
            TableName=self._table,
            ConsistentRead=True,
            KeyConditionExpression="#pk = :partition",
            FilterExpression="#seen_at >= :dead",
            ExpressionAttributeNames={"#pk": PARTITION_KEY, "#seen_at": "seen_at"},
            ExpressionAttributeValues={
                ":partition": {"S": partition},
                ":dead": _number(self._clock() - self._timeout_s),
            },
        )
        for page in pages:
            yield from page["Items"]

    async def _call(self, method: str, **arguments: Any) -> Mapping[str, Any] | None:
        """Call DynamoDB; None where the condition was not met."""

        def work(client: Any) -> Mapping[str, Any]:
            answer: Mapping[str, Any] = getattr(client, method)(TableName=self._table, **arguments)
            return answer

        return await self._clients.call("dynamodb", f"table {self._table}", self._guarded(work))

    def _guarded(self, work: Callable[[Any], T]) -> Callable[[Any], T | None]:
        def guarded(client: Any) -> T | None:
            from botocore.exceptions import ClientError

            try:
                return work(client)
            except ClientError as error:
                if error_code(error) == "ConditionalCheckFailedException":
                    return None
                if error_code(error) == "ResourceNotFoundException":
                    raise StoreError(f"there is no table {self._table!r}; create it, or name another") from error
                raise

        return guarded

    def _read(self, item: Item, read: Callable[[Item], T]) -> T:
        try:
            return read(item)
        except (KeyError, ValueError) as error:
            where = f"{item[PARTITION_KEY].get('S')} {item[SORT_KEY].get('S')}"
            raise StoreError(f"table {self._table}: the item {where} is damaged: {error}; delete it") from error


def gateway_item(gateway: GatewayReport, timeout_s: float) -> dict[str, dict[str, str]]:
    """What a gateway reports, as an item that DynamoDB removes some time after `timeout_s`."""
    return {
        **_key(GATEWAYS, gateway.id),
        "revision": {"S": gateway.revision},
        **_life(gateway.seen_at, timeout_s),
    }


def _life(seen_at: float, timeout_s: float) -> dict[str, dict[str, str]]:
    return {"seen_at": _number(seen_at), EXPIRY: {"N": str(math.ceil(seen_at + timeout_s))}}


def _key(partition: str, sort: str) -> dict[str, dict[str, str]]:
    return {PARTITION_KEY: {"S": partition}, SORT_KEY: {"S": sort}}


def _endpoint_key(endpoint: Endpoint) -> dict[str, dict[str, str]]:
    return _key(ENDPOINTS, f"{endpoint.shard}/{endpoint.host}:{endpoint.port}")


def _number(value: float) -> dict[str, str]:
    return {"N": repr(float(value))}


def _endpoint(item: Item) -> RegisteredEndpoint:
    ports = {name: int(item[name]["N"]) for name in ("grpc_port", "metrics_port") if name in item}
    return RegisteredEndpoint(
        Endpoint(item["shard"]["S"], item["host"]["S"], int(item["port"]["N"])),
        item["state"]["S"],
        float(item["seen_at"]["N"]),
        note=item["note"]["S"],
        **ports,
    )


def _gateway(item: Item) -> GatewayReport:
    return GatewayReport(item[SORT_KEY]["S"], item["revision"]["S"], float(item["seen_at"]["N"]))
