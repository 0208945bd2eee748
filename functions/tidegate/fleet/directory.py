"""The endpoints that may be sent requests, as the registry says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence

from tidegate.errors import StoreError
from tidegate.ports import Endpoint, EndpointState, RegisteredEndpoint, Registry
from tidegate.tasks import wait_at_most

logger = logging.getLogger(__name__)


class RegistryDirectory:
    """An `EndpointDirectory` that follows the registry; it keeps what it last knew while that does not answer.

    A wedged endpoint still answers for the models that it has: it is listed where its shard has no other. So are endpoints that
    were listed before and are not known to have ended: after an outage of the registry all of them have been silent, and each
    looks at what it must hold before it is ready again. One that is known to answer nothing is left out, also where its shard
    has no other: so a request finds another shard or a fallback sooner.

    `shard` is the one shard that it follows (None: all).
    """

    def __init__(self, registry: Registry, shard: str | None = None) -> None:
        self._registry = registry
        self._shard = shard
        self._entries: Mapping[Endpoint, RegisteredEndpoint] = {}
        self._known: Mapping[str, tuple[Endpoint, ...]] = {}
        self._shards: Mapping[str, tuple[Endpoint, ...]] = {}
        self._rpc_ports: Mapping[Endpoint, int | None] = {}
        self._ended: set[Endpoint] = set()
        self._follower: Callable[[Mapping[str, Sequence[Endpoint]]], None] = lambda _shards: None
        self._silent: set[Endpoint] = set()
        self._wanted = asyncio.Event()

    def endpoints(self, shard: str) -> Sequence[Endpoint]:
        return self._shards.get(shard, ())

    def state(self, endpoint: Endpoint) -> EndpointState | None:
        entry = self._entries.get(endpoint)
        return None if entry is None else entry.state

    def rpc_port(self, endpoint: Endpoint) -> int | None:
        """Return the gRPC port of an endpoint, or None if it has none or is not listed."""
        return self._rpc_ports.get(endpoint)

    def serving(self, shard: str) -> Sequence[Endpoint]:
        return [
            each
            for each, entry in self._entries.items()
            if each.shard == shard and entry.state is not EndpointState.LOADING
        ]

    def subscribe(self, follower: Callable[[Mapping[str, Sequence[Endpoint]]], None]) -> None:
        """Give the endpoints of all shards to `follower`, now and at every change."""
        self._follower = follower
        follower(self._shards)

    def drop(self, endpoint: Endpoint) -> None:
        self._ended.add(endpoint)
        self._silent.discard(endpoint)
        self._show([entry for entry in self._entries.values() if entry.endpoint != endpoint])

    def silence(self, endpoint: Endpoint) -> None:
        """Leave out an endpoint that answers nothing, until `resume`."""
        self._silent.add(endpoint)
        self._offer()

    def resume(self, endpoint: Endpoint) -> None:
        self._silent.discard(endpoint)
        self._offer()

    def poke(self) -> None:
        self._wanted.set()

    async def refresh(self) -> None:
        """Look at the registry now. Raises `StoreError`; then it stays as it was."""
        self._show(await self._registry.endpoints(self._shard))

    async def follow(self, interval_s: float) -> None:
        """Look at the registry every `interval_s` seconds, and when it is poked, until cancelled."""
        warned = False
        while True:
            self._wanted.clear()
            try:
                await self.refresh()
                warned = False
            except StoreError as error:
                if not warned:
                    logger.warning("the registry does not answer, so the endpoints stay as they were: %s", error)
                warned = True
            await wait_at_most(self._wanted, interval_s)

    def _show(self, entries: Sequence[RegisteredEndpoint]) -> None:
        ready: dict[str, list[Endpoint]] = {}
        wedged: dict[str, list[Endpoint]] = {}
        for entry in entries:
            if entry.state is not EndpointState.LOADING:
                group = ready if entry.state is EndpointState.READY else wedged
                group.setdefault(entry.endpoint.shard, []).append(entry.endpoint)
        self._entries = {entry.endpoint: entry for entry in entries}
        known = {shard: [each for each in group if each not in self._ended] for shard, group in self._known.items()}
        self._known = {shard: tuple(group) for shard, group in (known | wedged | ready).items()}
        ports = {**self._rpc_ports, **{entry.endpoint: entry.grpc_port for entry in entries}}
        self._rpc_ports = {each: ports.get(each) for group in self._known.values() for each in group}
        self._offer()

    def _offer(self) -> None:
        shards = {
            shard: tuple(each for each in group if each not in self._silent) for shard, group in self._known.items()
        }
        if shards != self._shards:
            self._shards = shards
            self._follower(shards)
