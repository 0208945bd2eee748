"""The registry of model servers and gateways in one DynamoDB table."""

from __future__ import annotations

import ipaddress
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from tidegate.aws.clients import AwsClients, error_code
from tidegate.aws.formats import END_OF_TIME_S
from tidegate.aws.layout import ENDPOINTS, EXPIRY, GATEWAYS, PARTITION_KEY, SORT_KEY
from tidegate.errors import StoreError
from tidegate.ports import (
    Endpoint,
    EndpointListing,
    EndpointState,
    GatewayReport,
    RefusedEndpoint,
    RegisteredEndpoint,
)
from tidegate.ports.store_rules import SILENCE_S, by_address

logger = logging.getLogger(__name__)

T = TypeVar("T")
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Item = Mapping[str, Mapping[str, str]]
"""An item, or a part of one, in DynamoDB's own form: `{"port": {"N": "8000"}}`."""

WEDGED = EndpointState.WEDGED
REGISTER_ATTEMPTS = 3
FUTURE_S = 60.0
"""How far the clock of an endpoint may be ahead, in seconds: a later sign of life could keep it registered forever."""

LOOPBACK: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))

_ATTRIBUTES = {PARTITION_KEY, SORT_KEY, EXPIRY, "state", "note", "seen_at", "grpc_port", "metrics_port"}
_MOST_ADDRESS = 60


class DynamoRegistry:
    """A `Registry` in a table.

    Items without a sign of life for `timeout_s` by `clock` (Unix seconds) are ignored; DynamoDB removes them later.

    Several roles may write to the table, each to its own partitions, which IAM checks by the key of an item. Readers send
    endpoints the management secret, so they take the shard and the address from that key alone, and refuse endpoints outside
    `networks` and malformed items.
    """

    def __init__(
        self,
        clients: AwsClients,
        table: str,
        timeout_s: float = SILENCE_S,
        clock: Callable[[], float] = time.time,
        networks: Sequence[Network] = LOOPBACK,
    ) -> None:
        self._clients = clients
        self._table = table
        self._networks = tuple(networks)
        self._timeout_s = timeout_s
        self._clock = clock

    async def register(self, entry: RegisteredEndpoint) -> None:
        key = _endpoint_key(entry.endpoint)
        fields = {
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
        raise StoreError(f"table {self._table}: {entry.endpoint.url} keeps changing; try again")

    async def deregister(self, endpoint: Endpoint) -> None:
        await self._call("delete_item", Key=_endpoint_key(endpoint))

    async def mark_wedged(self, endpoint: Endpoint, note: str) -> None:
        said: Item = {"state": {"S": WEDGED}, "note": {"S": note}}
        await self._update(_endpoint_key(endpoint), said, "attribute_exists(#pk)", {})

    async def endpoints(self, shard: str | None = None) -> Sequence[RegisteredEndpoint]:
        return (await self.listing(shard)).endpoints

    async def listing(self, shard: str | None = None) -> EndpointListing:
        items = await self._alive(ENDPOINTS, scan=True) if shard is None else await self._alive(ENDPOINTS + shard)
        trusted, refused = [], []
        for item in items:
            try:
                trusted.append(self._trusted(item))
            except (KeyError, ValueError) as error:
                refused.append(self._refused(item, error))
        refused.sort(key=lambda entry: (entry.shard, entry.address))
        return EndpointListing(tuple(sorted(trusted, key=by_address)), tuple(refused))

    async def report(self, gateway: GatewayReport) -> None:
        await self._call("put_item", Item=gateway_item(gateway, self._timeout_s))

    async def gateways(self) -> Sequence[GatewayReport]:
        """See `Registry.gateways`. Malformed items are logged and left out, as nothing is sent to gateways."""
        found = []
        for item in await self._alive(GATEWAYS):
            try:
                found.append(_gateway(item))
            except (KeyError, ValueError) as error:
                logger.warning("table %s: the item %s is malformed: %s; delete it", self._table, _place(item), error)
        return sorted(found, key=lambda gateway: gateway.id)

    async def _update(self, key: Item, fields: Item, condition: str, values: Item) -> bool:
        """Set attributes of an item, and return True, if `condition` (over `#pk` and `#state`) holds."""
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

    async def _alive(self, partition: str, *, scan: bool = False) -> list[Item]:
        """Return the live items of a partition, or with `scan` of all partitions with this prefix."""
        return await self._run(lambda client: list(self._items(client, partition, scan=scan))) or []

    def _items(self, client: Any, partition: str, *, scan: bool) -> Iterator[Item]:
        # `>=` alone would leave out malformed items, which must be reported.
        alive = "(NOT attribute_type(#seen_at, :number) OR #seen_at >= :dead)"
        how = (
            {"FilterExpression": f"begins_with(#pk, :partition) AND {alive}"}
            if scan
            else {"KeyConditionExpression": "#pk = :partition", "FilterExpression": alive}
        )
        pages = client.get_paginator("scan" if scan else "query").paginate(
            TableName=self._table,
            ConsistentRead=True,
            ExpressionAttributeNames={"#pk": PARTITION_KEY, "#seen_at": "seen_at"},
            ExpressionAttributeValues={
                ":partition": {"S": partition},
                ":number": {"S": "N"},
                ":dead": _number(self._clock() - self._timeout_s),
            },
            **how,
        )
        for page in pages:
            yield from page["Items"]

    async def _call(self, method: str, **arguments: Any) -> Mapping[str, Any] | None:
        """Call DynamoDB. Return None if the condition was not met."""
        return await self._run(lambda client: getattr(client, method)(TableName=self._table, **arguments))

    async def _run(self, work: Callable[[Any], T]) -> T | None:
        try:
            return await self._clients.call("dynamodb", f"table {self._table}", work)
        except StoreError as error:
            code = error_code(error.__cause__)
            if code == "ConditionalCheckFailedException":
                return None
            if code == "ResourceNotFoundException":
                raise StoreError(f"there is no table {self._table!r}; create it, or name another") from error
            raise

    def _refused(self, item: Item, error: KeyError | ValueError) -> RefusedEndpoint:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        note = f"the item {_place(item)} of table {self._table} is not trusted: {reason}; delete it"
        return RefusedEndpoint(_shard(item), _shown(item[SORT_KEY]["S"]), self._clock(), note)

    def _trusted(self, item: Item) -> RegisteredEndpoint:
        unknown = sorted(item.keys() - _ATTRIBUTES)
        if unknown:
            raise ValueError(f"it has the attribute {_shown(unknown[0])}, which no endpoint has")
        host, _, port = item[SORT_KEY]["S"].rpartition(":")
        address = ipaddress.ip_address(host)
        if not any(address in network for network in self._networks):
            networks = ", ".join(map(str, self._networks))
            raise ValueError(f"{address} is outside the networks that endpoints may be in ({networks})")
        state, seen_at = item["state"]["S"], float(item["seen_at"]["N"])
        if state not in set(EndpointState):
            raise ValueError(f"its state is not one of {', '.join(EndpointState)}")
        if seen_at > self._clock() + FUTURE_S:
            raise ValueError("its last sign of life lies in the future")
        ports = {name: _port(item[name]["N"]) for name in ("grpc_port", "metrics_port") if name in item}
        # `127.1` or `::ffff:7f00:1` would be another name of the same endpoint.
        if str(address) != host:
            raise ValueError(f"its address is written {address}")
        endpoint = Endpoint(_shard(item), host, _port(port))
        return RegisteredEndpoint(endpoint, EndpointState(state), seen_at, note=item["note"]["S"], **ports)


def gateway_item(gateway: GatewayReport, timeout_s: float) -> dict[str, dict[str, str]]:
    """Encode a report as an item that expires after `timeout_s`."""
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
    return _key(ENDPOINTS + endpoint.shard, f"{endpoint.host}:{endpoint.port}")


def _shard(item: Item) -> str:
    return item[PARTITION_KEY]["S"].removeprefix(ENDPOINTS)


def _place(item: Item) -> str:
    return f"{_shown(item[PARTITION_KEY]['S'])} {_shown(item[SORT_KEY]['S'])}"


def _shown(text: str) -> str:
    """Return an untrusted text in printable form for a log or a terminal."""
    return ascii(text)[1:-1][:_MOST_ADDRESS]


def _port(text: str) -> int:
    number = int(text)
    if not 0 < number < 65_536:
        raise ValueError(f"{number} is not a port")
    return number


def _number(value: float) -> dict[str, str]:
    return {"N": repr(float(value))}


def _gateway(item: Item) -> GatewayReport:
    seen_at = float(item["seen_at"]["N"])
    if not 0 <= seen_at < END_OF_TIME_S:
        raise ValueError("its last sign of life has no time")
    return GatewayReport(item[SORT_KEY]["S"], item["revision"]["S"], seen_at)
