"""The limits of the listener."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerConfig:
    """What one connection may cost. Every limit is above 0; times are kept to about half a second, never cut short."""

    max_connections: int = 1024
    """Open connections. Above it the longest idle one is closed, or else the new one gets a 503."""

    max_head_bytes: int = 65_536
    """Request line and headers together; more is a 431."""

    max_headers: int = 256
    """Header lines of a request; more is a 431."""

    max_target_bytes: int = 8192
    """The request target, path and query; more is a 414. RFC 9112 3 recommends at least 8 000."""

    head_timeout_s: float = 10.0
    """From a connection's start, or from a later request's first byte, to the end of the head; then 408."""

    idle_timeout_s: float = 75.0
    """A kept connection without a request is closed after it."""

    body_timeout_s: float = 30.0
    """A body of which no byte comes for so long is a 408; see `min_bytes_per_s`."""

    write_timeout_s: float = 30.0
    """A caller that takes less than `min_bytes_per_s` of its answer for so long is disconnected."""

    min_bytes_per_s: int = 500
    """What a body must bring on average once `body_timeout_s` is used up (as Apache's mod_reqtimeout has it)."""

    max_buffered_bytes: int = 65_536
    """Bytes of a body, or of requests sent ahead, at which the connection is read no further. One read may exceed it."""

    max_unread_bytes: int = 65_536
    """What is left of a body that the app did not read is dropped up to this size; above it the connection ends."""

    linger_s: float = 2.0
    """How long a connection that ends with an early answer is still read, so that the caller gets the answer and no reset."""

    flush_s: float = 1.0
    """How long a stop waits for the last answers to leave, after the requests' own grace."""
