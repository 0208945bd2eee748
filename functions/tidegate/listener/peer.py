"""The peer of a connection: its address, whether it takes anything, and whether it closed only its sending side or the connection.

Both look the same until something is sent: a peer that closed the connection answers with a reset, which the kernel
records. So the peer is sent an interim response, which every HTTP/1.1 client has to ignore if it did not expect one
(https://www.rfc-editor.org/rfc/rfc9110#section-15.2).
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_FIRST_LOOK_S = 0.05
_LONGEST_S = 1.0
_TCP_CLOSE = 7
"""The state of a socket that was reset (Linux, `include/net/tcp_states.h`)."""


def watch_peer(
    transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, wanted: Callable[[], bool], interim: bool
) -> None:
    """Abort the connection once a reset shows that its peer is gone, as long as the answer is `wanted`.

    Pass `interim=False` where an interim response is not allowed: to an HTTP/1.0 client, or once the answer has begun. Then
    only other bytes that are sent can provoke the reset.
    """
    if interim:
        transport.write(CONTINUE)
    _look_later(transport, loop, wanted, _FIRST_LOOK_S)


def _look_later(
    transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, wanted: Callable[[], bool], delay_s: float
) -> None:
    def look() -> None:
        if not wanted() or transport.is_closing():
            return
        if _was_reset(transport):
            transport.abort()
            return
        _look_later(transport, loop, wanted, min(_LONGEST_S, delay_s * 2))

    loop.call_later(delay_s, look)


def _was_reset(transport: asyncio.Transport) -> bool:
    peer: socket.socket | None = transport.get_extra_info("socket")
    if peer is None or peer.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    return peer.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _TCP_CLOSE


def limit_silence(transport: asyncio.Transport, silent_s: float) -> None:
    """Have the kernel close a connection whose peer acknowledges nothing, or has no room for what was sent, for so long.

    A peer that does not read has no room once its kernel's buffer is full, some 64 KiB on (https://www.rfc-editor.org/rfc/rfc5482).
    """
    peer = transport.get_extra_info("socket")
    if peer is not None and peer.family in (socket.AF_INET, socket.AF_INET6):
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(silent_s * 1000))


def address_of(transport: asyncio.BaseTransport, side: str) -> tuple[str, int] | None:
    """Return host and port of one side; None for a Unix socket."""
    found = transport.get_extra_info(side)
    return (str(found[0]), int(found[1])) if isinstance(found, (list, tuple)) and len(found) >= 2 else None
