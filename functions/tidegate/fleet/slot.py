"""A server as its supervisor sees it: whether it answers, its entry in the registry, its replacements and their reasons."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import asdict, dataclass
from typing import Any

from tidegate.control.plane import ControlPlane
from tidegate.errors import StoreError
from tidegate.fleet.pulse import Pulse
from tidegate.ports import EndpointState, ModelServer, RegisteredEndpoint
from tidegate.ports.bundle_store import iso_time
from tidegate.tasks import cancel, wait_at_most

logger = logging.getLogger(__name__)

SILENT = "it answers nothing"
RETRY_S = 1.0

GOODBYE_S = 2.0
"""How long a stopping server waits for the registry."""

LONGEST_HOLD_S = 90.0
"""How long the replacement of one silent server delays that of others: its successor may never become ready."""

MOST_PATIENCE = 8
"""The longest silence of a server that falls silent repeatedly, as a multiple of `hung_after_s`."""

RECENT_S = 600.0
"""How long the replacement of a silent server makes its supervisor wait longer for the next ones."""


@dataclass(frozen=True, slots=True)
class Restarts:
    """How often the server at one place of a shard was replaced, when last (Unix seconds) and why; `url` is its address
    now, None while it has none."""

    shard: str
    url: str | None = None
    count: int = 0
    last_at: float = 0.0
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"last_at": iso_time(self.last_at)}


class Slot:
    """A running server, its pulse, and what is reported of it to the registry.

    While the stores do not answer, `state` says `loading`, as publishers may pass the server by, and `filled` stays: what
    serves must not be replaced for that. While it is `silent` it is registered as `loading`, whatever its state.

    Attributes:
        ended: completed with the reason once it has ended.
        filled: whether it has been ready, and is not known to lack anything since.
        changed: set it to register the server soon.
    """

    def __init__(self, plane: ControlPlane, server: ModelServer, beat_s: float) -> None:
        self.server = server
        self.pulse = Pulse(server.live)
        self.ended = asyncio.create_task(server.wait())
        self.state = EndpointState.LOADING
        self.filled = self.silent = False
        self.note = ""
        self._plane = plane
        self._beat_s = beat_s
        self._seen_at = 0.0
        self.changed = asyncio.Event()
        self._asking = asyncio.create_task(self.pulse.run())
        self._beat: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        return not self.ended.done()

    async def register(self) -> None:
        """Write the server to the registry, again and again until that has it; from then on every `beat_s`. One that could
        not be written for longer than twice that is `loading` from then on, as publishers may have passed it by."""
        registry, server = self._plane.ports.registry, self.server
        while True:
            now = self._plane.ports.clock()
            state, note = (EndpointState.LOADING, SILENT) if self.silent else (self.state, self.note)
            entry = RegisteredEndpoint(server.endpoint, state, now, server.grpc_port, server.metrics_port, note)
            try:
                await registry.register(entry)
            except StoreError as error:
                logger.warning("%s cannot be registered: %s", self.server.endpoint, error)
            else:
                self._seen_at = now
                break
            await asyncio.sleep(RETRY_S)
            self._doubt(now)
        if self._beat is None:
            self._beat = asyncio.create_task(self._keep_registered())

    async def _keep_registered(self) -> None:
        while self.running:
            await wait_at_most(self.changed, self._beat_s)
            self.changed.clear()
            if self.ended.done():
                return
            self._doubt(self._plane.ports.clock())
            await self.register()

    def _doubt(self, now: float) -> None:
        if now - self._seen_at > 2 * self._beat_s and self.state is EndpointState.READY:
            self.state = EndpointState.LOADING

    async def deregister(self) -> None:
        """Remove the server from the registry, which drops silent ones anyway, and stop checking it."""
        await cancel(*(task for task in (self._beat, self._asking) if task is not None))
        with contextlib.suppress(StoreError, TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                await self._plane.ports.registry.deregister(self.server.endpoint)


class Turn:
    """Lets one silent server of a fleet at a time be replaced: a machine that has too much to do makes all of them silent, and
    restarting them all would make that worse."""

    def __init__(self) -> None:
        self._until = 0.0

    def take(self) -> bool:
        """Take the turn until `leave`, and for `LONGEST_HOLD_S` at most. Return whether it was free."""
        now = asyncio.get_running_loop().time()
        if now < self._until:
            return False
        self._until = now + LONGEST_HOLD_S
        return True

    def leave(self) -> None:
        self._until = 0.0


class Patience:
    """The silence after which a server is replaced: `hung_after_s`, and twice as long after each replacement."""

    def __init__(self, hung_after_s: float) -> None:
        self._hung_after_s = hung_after_s
        self._lost: list[float] = []

    def lose(self, now: float) -> None:
        """Note that a server was replaced for its silence, at `now` in Unix seconds."""
        self._lost.append(now)

    def limit_s(self, now: float) -> float:
        self._lost = [at for at in self._lost if at > now - RECENT_S]
        return self._hung_after_s * min(1 << len(self._lost), MOST_PATIENCE)
