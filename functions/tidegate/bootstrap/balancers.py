"""The endpoints of shards as a setting names them, and what is served without any: for processes beside no control plane."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate.aws.shard_names import label_of
from tidegate.errors import SettingsError
from tidegate.ports import Endpoint, EndpointDirectory

SHARD_ENDPOINTS = "TIDEGATE_SHARD_ENDPOINTS"
EVERY_SHARD = "*"
FLAGS = "/ofrep/v1/evaluate/flags"
"""`tidegate.web.ofrep.PATH`, which the function for shadows would import with a web framework that it lacks."""


@dataclass(frozen=True, slots=True)
class BalancerDirectory:
    """One endpoint per shard, as a deployed gateway knows it: the shard's own load balancer.

    `balancers` has `host:port` by shard; the entry `*` is that of every other one, with `{label}` for the shard's label.
    """

    balancers: Mapping[str, str]

    def endpoints(self, shard: str) -> Sequence[Endpoint]:
        address = self.balancers.get(shard) or self.balancers.get(EVERY_SHARD)
        return (_endpoint(shard, address.replace("{label}", label_of(shard))),) if address else ()


def shard_directory(text: str | None) -> EndpointDirectory:
    """Return the directory of a deployed gateway from `text`, a JSON object of `host:port` by shard: see `BalancerDirectory`."""
    try:
        entries = json.loads(text or "{}")
        for shard, address in entries.items():
            _endpoint(shard, address)
    except (ValueError, AttributeError, RecursionError) as error:
        raise SettingsError(
            f'{SHARD_ENDPOINTS} must be a JSON object of "host:port" by shard, such as {{"alpha": "alpha.internal:80"}}'
        ) from error
    return BalancerDirectory(entries)


OFFERED = "/v1/objectives, /v1/objectives/{objective}/resolve, /v1/bundle, /v1/shards, /ofrep/v1/evaluate/flags, /authorize and /openapi.json"
"""What `resolves` offers, for the error about any other path."""


def resolves(path: str) -> bool:
    """Offer what needs no model server, as the resolver's function does."""
    parts = path.split("/")[1:]
    if parts[:2] == ["v1", "objectives"]:
        return len(parts) == 2 or (len(parts) == 4 and parts[3] == "resolve")
    return (
        path in ("/openapi.json", "/v1/bundle", "/v1/shards", FLAGS)
        or path.startswith(f"{FLAGS}/")
        or parts[0] == "authorize"
    )


def _endpoint(shard: str, address: Any) -> Endpoint:
    host, _, port = str(address).rpartition(":")
    if not host or not 0 < int(port) < 65_536:
        raise ValueError(address)
    return Endpoint(shard, host, int(port))
