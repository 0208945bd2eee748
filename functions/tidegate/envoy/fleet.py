"""The servers of each shard, as Envoy gets to know them."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.errors import SettingsError

_EXPECTED = 'a JSON object such as {"alpha": [{"host": "10.0.0.1", "http_port": 8000, "grpc_port": 8001}]}'


@dataclass(frozen=True, slots=True, order=True)
class Server:
    """A Triton server: an address or a name, and its ports (None: it serves no gRPC)."""

    host: str
    http_port: int
    grpc_port: int | None = None

    @property
    def is_address(self) -> bool:
        """Whether the host is an IP address, and no name to look up."""
        try:
            ipaddress.ip_address(self.host)
        except ValueError:
            return False
        return True


Fleet = Mapping[str, Sequence[Server]]
"""The servers by shard."""


def read_fleet(text: str | bytes) -> Fleet:
    """Read a fleet from JSON: a list of servers by shard.

    Raises:
        SettingsError: it is not of that form.
    """
    try:
        document = json.loads(text)
        return {shard: tuple(_server(each) for each in servers) for shard, servers in document.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise SettingsError(f"the servers of a fleet must be {_EXPECTED}: {error}") from None


def fleet_json(fleet: Fleet) -> dict[str, list[dict[str, Any]]]:
    """Return a fleet as `read_fleet` reads it."""
    return {
        shard: [
            {"host": each.host, "http_port": each.http_port}
            | ({} if each.grpc_port is None else {"grpc_port": each.grpc_port})
            for each in servers
        ]
        for shard, servers in fleet.items()
    }


def _server(value: Any) -> Server:
    unknown = value.keys() - {"host", "http_port", "grpc_port"}
    if unknown:
        raise ValueError(f"unknown member {min(unknown)!r}")
    host, ports = value["host"], [value["http_port"], value.get("grpc_port")]
    if not isinstance(host, str) or not host:
        raise ValueError("host is not a text")
    for port in ports:
        if port is not None and (isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65_536):
            raise ValueError("a port is not a number from 1 to 65535")
    return Server(host, *ports)
