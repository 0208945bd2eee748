"""What the supervisor of a server remembers of it: what the registry is told, how often it was replaced, and why."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tidegate.control.pulse import Pulse
from tidegate.ports import EndpointState, ModelServer

SILENT = "it answers nothing"

LONGEST_HOLD_S = 90.0
"""For how long the replacement of one silent server holds up that of others: its successor may never come."""

MOST_PATIENCE = 8
"""How many times `hung_after_s` a server that falls silent again and again may be silent."""

RECENT_S = 600.0
"""For so long a server that was replaced for its silence makes its supervisor more patient with the next ones."""


@dataclass(frozen=True, slots=True)
class Restarts:
    """How often the server at one place of a shard was replaced, when last (Unix seconds) and why; `url` is its address
    now, None while it has none."""

    shard: str
    url: str | None
    count: int
    last_at: float
    reason: str

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        last_at = datetime.fromtimestamp(self.last_at, UTC).isoformat(timespec="seconds")
        return {"shard": self.shard, "url": self.url, "count": self.count, "last_at": last_at, "reason": self.reason}


@dataclass(slots=True)
class Slot:
    """A running server, and what the registry is told of it. `ended` is done once it has ended, with how; `asking` and `beat`
    ask for its pulse and tell the registry that it is alive, the latter at once where it has
    `changed`.

    `filled` says that it has been ready and is not known to lack anything since. While the stores do not answer, `state`
    says `loading`, as publishers may pass the server by, and `filled` stays: what serves must not be replaced for that.
    While it is `silent` it is registered as `loading`, whatever its state.
    """

    server: ModelServer
    ended: asyncio.Task[str]
    pulse: Pulse
    asking: asyncio.Task[None]
    state: EndpointState = EndpointState.LOADING
    filled: bool = False
    silent: bool = False
    note: str = ""
    seen_at: float = 0.0
    beat: asyncio.Task[None] | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def name(self) -> str:
        """The server in words."""
        return f"{self.server.endpoint.url} of shard {self.server.endpoint.shard!r}"

    @property
    def registered(self) -> tuple[EndpointState, str]:
        """State and note for the registry."""
        return (EndpointState.LOADING, SILENT) if self.silent else (self.state, self.note)


class Turn:
    """Whose turn it is to be replaced for its silence: one server of a fleet at a time, since a machine that has too much to
    do makes all of them silent, and starting them all anew would make that worse."""

    def __init__(self) -> None:
        self._until = 0.0

    def take(self) -> bool:
        """Whether it is free; then it is taken until `leave`, and for `LONGEST_HOLD_S` at most."""
        now = asyncio.get_running_loop().time()
        if now < self._until:
            return False
        self._until = now + LONGEST_HOLD_S
        return True

    def leave(self) -> None:
        """Let the next have it."""
        self._until = 0.0


class Patience:
    """How long a server may be silent before it is replaced: twice as long after each replacement, up to a bound.

    `hung_after_s` is how long the first may be.
    """

    def __init__(self, hung_after_s: float) -> None:
        self._hung_after_s = hung_after_s
        self._lost: list[float] = []

    def lose(self, now: float) -> None:
        """A server was replaced for its silence, at `now` in Unix seconds."""
        self._lost.append(now)

    def limit_s(self, now: float) -> float:
        """How long a server may be silent."""
        self._lost = [at for at in self._lost if at > now - RECENT_S]
        return self._hung_after_s * min(1 << len(self._lost), MOST_PATIENCE)
