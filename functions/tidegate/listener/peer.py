"""Tells a peer that only ended its sending side from one that is gone.

Both look the same until they are sent something: who closed the connection answers with a reset, which the kernel notes.
RFC 9110 15.2 (https://www.rfc-editor.org/rfc/rfc9110#section-15.2) has every HTTP/1.1 client ignore interim responses that
it did not ask for, so one of these is what it is sent.
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
    """Abort the connection once its peer proves to be gone, while the answer is `wanted`.

    Without `interim` (an HTTP/1.0 client takes no such response, nor does one whose answer has begun) only what else is
    sent can prove it.
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
