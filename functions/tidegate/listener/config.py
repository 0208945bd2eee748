"""The limits of the listener."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerConfig:
    """Limits on the cost of connections, each above 0. Time-outs may come up to about half a second late, never early."""

    max_connections: int = 1024
    """Open connections. Beyond the limit the longest idle one is closed; if none is idle, the new one gets a 503."""

    max_head_bytes: int = 65_536
    """Size of the request line and headers together; more is a 431."""

    max_headers: int = 256
    """Header lines of a request; more is a 431."""

    max_target_bytes: int = 8192
    """Length of the request target (path and query); more is a 414. RFC 9112 3 recommends at least 8 000."""

    head_timeout_s: float = 10.0
    """Time from a request's first byte to the end of its head; more is a 408."""

    idle_timeout_s: float = 75.0
    """How long a connection without a request is kept open."""

    body_timeout_s: float = 30.0
    """How long a body may pause; longer is a 408. See `min_bytes_per_s`."""

    write_timeout_s: float = 30.0
    """How long a caller may read its answer at less than `min_bytes_per_s`; then it is disconnected."""

    min_bytes_per_s: int = 500
    """The average rate that a body must reach once `body_timeout_s` is used up, as in Apache's mod_reqtimeout."""

    max_buffered_bytes: int = 65_536
    """Unread bytes of a body, or of pipelined requests, at which reading from the connection pauses. One read may exceed it."""

    max_unread_bytes: int = 65_536
    """The rest of a body that the app did not read is dropped up to this size; if more is left, the connection is closed."""

    linger_s: float = 2.0
    """How long a closing connection is still read after an early answer, so that the caller gets the answer and no reset."""

    flush_s: float = 1.0
    """How long a stop waits for the last answers to be sent, after the grace period for requests."""
