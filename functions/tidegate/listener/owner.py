"""The interface of the listener to its connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from tidegate.listener.config import ListenerConfig
    from tidegate.listener.connection import Connection
    from tidegate.listener.exchange import App, AtOnce


class Owner(Protocol):
    """A listener, as its connections use it."""

    app: App
    at_once: AtOnce | None
    config: ListenerConfig
    now_s: float
    """The event loop's time, at most about half a second old: reading the clock for each request would cost more."""

    stopping: bool

    def opened(self, connection: Connection) -> bool:
        """Note a new connection; return whether there is room for it."""

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""

    def refused(self, text: str, peer: str) -> None:
        """Log a refusal."""

    def later_s(self, delay_s: float) -> float:
        """Return a deadline that is at least `delay_s` away."""
