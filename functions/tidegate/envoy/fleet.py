"""The servers of each shard, as Envoy gets to know them."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.errors import SettingsError
from tidegate.strict_json import DuplicateNameError, unique_names

_EXPECTED = 'a JSON object such as {"alpha": [{"host": "10.0.0.1", "http_port": 8000, "grpc_port": 8001}]}'
_NAME = re.compile(r"(?!(?:.*\.)?[0-9]+\.?\Z)[A-Za-z0-9_.-]{1,253}")
"""A name of a host. If its last part is a number, it is an address with a mistake."""


@dataclass(frozen=True, slots=True, order=True)
class Server:
    """A Triton server: an address or a name, and its ports (None: it serves no gRPC)."""

    host: str
    http_port: int
    grpc_port: int | None = None

    @property
    def is_address(self) -> bool:
        """Whether the host is an IP address, and no name to look up."""
        return _is_address(self.host)


Fleet = Mapping[str, Sequence[Server]]
"""The servers by shard."""


def read_fleet(text: str | bytes) -> Fleet:
    """Read a fleet from JSON: a list of servers by shard.

    Raises:
        SettingsError: it is not of that form; the message says where.
    """
    try:
        document = json.loads(text, object_pairs_hook=unique_names)
    except DuplicateNameError as error:
        raise SettingsError(f"the servers of a fleet must be {_EXPECTED}: {error.name!r} is there twice") from None
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"the servers of a fleet must be {_EXPECTED}: {error}") from None
    if not isinstance(document, dict):
        raise SettingsError(f"the servers of a fleet must be {_EXPECTED}, not a {type(document).__name__}")
    fleet = {}
    for shard, servers in document.items():
        if not isinstance(servers, list):
            raise SettingsError(f"shard '{shard}' must have a list of servers: a fleet is {_EXPECTED}")
        fleet[shard] = tuple(_server(each, _place(shard, number)) for number, each in enumerate(servers, 1))
    return fleet


def check_places(fleet: Fleet) -> None:
    """Check that no two servers, and no two ports of one, are at the same place.

    Raises:
        SettingsError: two are.
    """
    taken: dict[tuple[str, int], str] = {}
    for shard, servers in fleet.items():
        for number, server in enumerate(servers, 1):
            for kind, port in (("http_port", server.http_port), ("grpc_port", server.grpc_port)):
                if port is None:
                    continue
                mine = f"{_place(shard, number)}: {kind}"
                other = taken.setdefault((server.host, port), mine)
                if other is not mine:
                    raise SettingsError(
                        f"{mine} {port} at {server.host} is taken by {other}: each port is of one server"
                    )


def is_host(text: str) -> bool:
    """Return whether a text is an IP address, or a name to look up."""
    return _is_address(text) or _NAME.fullmatch(text) is not None


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


def _server(value: Any, place: str) -> Server:
    if not isinstance(value, dict):
        raise SettingsError(f"{place} must be an object with host, http_port and grpc_port: a fleet is {_EXPECTED}")
    unknown = value.keys() - {"host", "http_port", "grpc_port"}
    if unknown:
        raise SettingsError(f"{place}: unknown member {min(unknown)!r}; a server has host, http_port and grpc_port")
    missing = [name for name in ("host", "http_port") if name not in value]
    if missing:
        raise SettingsError(f"{place}: {missing[0]} is missing; a server has host, http_port and grpc_port")
    host = value["host"]
    if not isinstance(host, str) or not is_host(host):
        raise SettingsError(f"{place}: host must be an IP address or a name, without a scheme or a port, not {host!r}")
    for name in ("http_port", "grpc_port"):
        port = value.get(name)
        if port is None and name == "grpc_port":
            continue
        if isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65_536:
            raise SettingsError(f"{place}: {name} must be a number from 1 to 65535, not {port!r}")
    return Server(host, value["http_port"], value.get("grpc_port"))


def _place(shard: str, number: int) -> str:
    return f"shard '{shard}', server {number}"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
