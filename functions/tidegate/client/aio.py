"""The client for an event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, TypeVar

from tidegate.client.async_connections import AsyncConnections
from tidegate.client.base import ClientBase
from tidegate.client.calling import Inference
from tidegate.client.config import ClientConfig
from tidegate.client.exchange import Ask, Reply, Request, Steps
from tidegate.client.resolver import Resolution, is_newer
from tidegate.client.rpc import AsyncRpcChannels
from tidegate.errors import EndpointError, SettingsError, TidegateError, UnavailableError
from tidegate.rules import Engine
from tidegate.rules.decision import Decision

T = TypeVar("T")


class AsyncClient(ClientBase):
    """`Client` with coroutines, for one event loop. No task runs while nothing is decided."""

    def __init__(self, url: str, config: ClientConfig | None = None, **options: Any) -> None:
        super().__init__(url, config, **options)
        self._connections = AsyncConnections(self.config.connect_timeout_s)
        self._channels = AsyncRpcChannels()
        self._renewing = asyncio.Lock()
        self._polling: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End a poll that is under way, and close the idle connections."""
        self._check_loop()
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.wait({self._polling})
        await self._connections.close()
        await self._channels.close()

    async def decide(self, objective: str, context: Mapping[str, Any] | None = None) -> Decision:
        """Return the decision for a context; see `Client.decide`."""
        if self._decides:
            rules = self._rules
            # Hot path: a decision of the engine, and nothing else.
            if time.monotonic() < rules.next_poll_s and rules.decide is not None:
                return rules.decide(objective, context or {})
        self._check_loop()
        if self._decides:
            return self._decided(await self._engine(), objective, context or {})
        return (await self._resolved(objective, context or {})).decision

    async def infer(
        self,
        objective: str,
        inputs: Mapping[str, Any],
        context: Mapping[str, Any] | None = None,
        *,
        timeout_ms: float | None = None,
    ) -> Inference:
        """Decide, and call the model; see `Client.infer`."""
        began_s = time.monotonic()
        self._check_loop()
        resolution = await self._resolution(objective, context or {})
        try:
            return await self._run(self._calling(resolution, inputs, timeout_ms, began_s))
        except UnavailableError:
            newer = await self._newer(resolution, objective, context or {})
            if newer is None:
                raise
            return await self._run(self._calling(newer, inputs, timeout_ms, began_s))

    def _check_loop(self) -> None:
        """Raise `SettingsError` where another event loop runs than at the first use, to which the connections belong."""
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise SettingsError(
                "an AsyncClient belongs to the event loop in which it was used first: make one in each, also in each asyncio.run"
            )

    async def _newer(self, old: Resolution, objective: str, context: Mapping[str, Any]) -> Resolution | None:
        """Return the decision of newer rules; None if the old ones are live still."""
        if not self._decides:
            return await self._renewed(old, objective, context)
        self._rules.hurry()
        await self._poll(waits=True)
        newer = await self._resolution(objective, context)
        return newer if is_newer(newer, old) else None

    async def _renewed(self, old: Resolution, objective: str, context: Mapping[str, Any]) -> Resolution | None:
        # Others that fail meanwhile wait for this one question.
        try:
            async with asyncio.timeout(self.config.fresh_wait_s):
                await self._renewing.acquire()
        except TimeoutError:
            return None
        try:
            if self._resolver.may_hurry():
                await self._run(self._resolver.ask(objective, context))
        except TidegateError:
            return None
        finally:
            self._renewing.release()
        return await self._run(self._resolver.renewed(old, objective, context))

    async def _resolution(self, objective: str, context: Mapping[str, Any]) -> Resolution:
        if not self._decides:
            return await self._resolved(objective, context)
        return Resolution(self._decided(await self._engine(), objective, context), self._rules.places)

    async def _resolved(self, objective: str, context: Mapping[str, Any]) -> Resolution:
        kept = self._resolver.find(objective, context)
        return await self._run(self._resolver.ask(objective, context)) if kept is None else kept

    async def _engine(self) -> Engine:
        rules = self._rules
        if time.monotonic() >= rules.next_poll_s:
            await self._poll()
        return rules.usable()

    async def _poll(self, *, waits: bool = False) -> None:
        """See to it that a poll runs, and wait for it where there are no rules, and for a moment where they are late or if it `waits`."""
        rules = self._rules
        rules.load()
        if self._polling is None or self._polling.done():
            if time.monotonic() < rules.next_poll_s:
                return
            self._polling = asyncio.get_running_loop().create_task(self._run(rules.poll()))
        if rules.engine is None:
            # Shielded: others that wait need it, too.
            await asyncio.shield(self._polling)
        elif rules.is_late or waits:
            await asyncio.wait({self._polling}, timeout=self.config.fresh_wait_s)

    async def _run(self, steps: Steps[T]) -> T:
        try:
            ask = next(steps)
            while True:
                try:
                    reply = await self._send(ask)
                except EndpointError as error:
                    ask = steps.throw(error)
                else:
                    ask = steps.send(reply)
        except StopIteration as end:
            result: T = end.value
            return result

    async def _send(self, ask: Ask) -> Reply:
        return await (self._connections.send(ask) if isinstance(ask, Request) else self._channels.send(ask))
