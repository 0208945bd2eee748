"""One connection of the listener: reads requests one after another and answers them in order."""

from __future__ import annotations

import asyncio
import math
from enum import Enum, auto
from typing import Protocol

from tidegate.listener.chunked import ChunkedBody
from tidegate.listener.config import ListenerConfig
from tidegate.listener.exchange import App, Exchange
from tidegate.listener.head import HeadReader
from tidegate.listener.pace import BodyPace
from tidegate.listener.peer import CONTINUE, watch_peer
from tidegate.listener.refusal import RefusalError, closing_answer

_JOIN_BELOW_BYTES = 65_536
_STOPPING = "the gateway is stopping; send the request again, over a new connection"


class Owner(Protocol):
    """What a connection needs of its listener."""

    app: App
    config: ListenerConfig
    now_s: float
    """The event loop's time, at most about half a second old: asking the loop would cost each request more."""

    stopping: bool

    def opened(self, connection: Connection) -> bool:
        """Note a new connection; return whether there is room for it."""

    def closed(self, connection: Connection) -> None:
        """Forget a connection."""

    def refused(self, text: str, peer: str) -> None:
        """Log a refusal."""

    def later_s(self, delay_s: float) -> float:
        """A deadline that does not come before `delay_s` have passed."""


class Phase(Enum):
    """What the bytes that arrive are."""

    HEAD = auto()
    """A request's head; nothing is under way."""
    BODY = auto()
    """The body of the request that is under way."""
    AHEAD = auto()
    """Requests sent ahead: the one under way is there as a whole."""
    UNREAD = auto()
    """What is left of the body of a request that is answered."""
    ENDING = auto()
    """Nothing any more: the answer has left, or is leaving, and the connection ends."""


class Connection(asyncio.Protocol):
    """The protocol of one connection.

    A request's bytes are read as far as needed: the next head not before the answer, so answers are in order, and one bad
    request costs those before it nothing. A caller that closes only its writing side gets its answer.
    """

    __slots__ = (
        "_body_left", "_chunked", "_client", "_config", "_ended_by_peer", "_exchange", "_held", "_loop", "_owner", "_pace", "_phase",
        "_reader", "_reading", "_server", "_transport", "_unsent_bytes", "read_deadline_s", "writable", "write_deadline_s",
    )  # fmt: skip

    _transport: asyncio.Transport

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._config = owner.config
        self._loop = loop
        self._reader = HeadReader(owner.config)
        self._phase = Phase.HEAD
        self._exchange: Exchange | None = None
        self._chunked: ChunkedBody | None = None
        self._body_left = 0
        self._pace = BodyPace(owner.config.body_timeout_s, owner.config.min_bytes_per_s)
        self._held = b""
        self._reading = True
        self._ended_by_peer = False
        self._client: tuple[str, int] | None = None
        self._server: tuple[str, int | None] | None = None
        self._unsent_bytes = 0
        self.writable: asyncio.Future[None] | None = None
        self.read_deadline_s = math.inf
        self.write_deadline_s = math.inf

    # What the event loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a listening socket makes stream transports
        self._client = _address(transport, "peername")
        self._server = _address(transport, "sockname")
        self.read_deadline_s = self._owner.later_s(self._config.idle_timeout_s)
        room = self._owner.opened(self)
        if self._owner.stopping:
            self._close()
        elif not room and not transport.is_closing():
            self._refuse(RefusalError(503, "too many connections are open; try again later", ((b"retry-after", b"1"),)))

    def data_received(self, data: bytes) -> None:
        try:
            self._read(data)
        except RefusalError as refusal:
            self._refuse(refusal)

    def eof_received(self) -> bool:
        """Whoever ends its side within a request is gone; whoever does after a request may still want the answer."""
        self._ended_by_peer = True
        if self._phase is Phase.AHEAD:
            exchange = self._exchange
            assert exchange is not None
            interim = exchange.takes_interim and not exchange.answer_begun
            watch_peer(self._transport, self._loop, lambda: self._exchange is not None, interim)
        elif self._phase is Phase.BODY:
            self.abort()
        else:
            self._close()
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # the reason does not matter
        self._phase = Phase.ENDING
        self.read_deadline_s = self.write_deadline_s = math.inf
        self._owner.closed(self)
        self.resume_writing()
        self._drop_exchange()
        self._reader.release()

    def pause_writing(self) -> None:
        self.writable = self._loop.create_future()
        self._watch_writing()

    def resume_writing(self) -> None:
        self.write_deadline_s = math.inf
        if self.writable is not None:
            self.writable.set_result(None)
            self.writable = None

    # What the listener tells

    @property
    def idle(self) -> bool:
        """Whether no part of a request has come since the last answer."""
        return self._phase is Phase.HEAD and not self._reader.begun

    @property
    def spare(self) -> bool:
        """Whether closing the connection costs its caller no answer."""
        if self._phase is Phase.ENDING:
            return not self._transport.get_write_buffer_size()
        return self._phase is Phase.HEAD

    @property
    def busy(self) -> bool:
        """Whether a request is under way, or arriving."""
        return self._exchange is not None or (self._phase is Phase.HEAD and self._reader.begun)

    def look(self, now_s: float) -> None:
        """Enforce the time-outs that are over."""
        if self.write_deadline_s <= now_s:
            self._check_writing()
        if self.read_deadline_s > now_s:
            return
        self.read_deadline_s = math.inf
        if self._phase is Phase.HEAD and self._reader.begun:
            self._refuse(
                RefusalError(408, f"the head took longer than {self._config.head_timeout_s:g} s; send it at once")
            )
        elif self._phase is Phase.BODY:
            self._refuse(
                RefusalError(408, f"the body came at less than {self._config.min_bytes_per_s} bytes per second")
            )
        elif self._phase is Phase.HEAD:
            self._close()
        else:
            self.abort()

    def stop(self) -> None:
        """Take no further request."""
        if self._exchange is not None:
            self._exchange.last_of_connection()
        elif self.idle:
            self._close()

    def end_request(self) -> None:
        """Answer a request that is under way with 503, where that is still possible, and end the connection."""
        if self._exchange is not None or self._phase is Phase.HEAD:
            self._end_with(closing_answer(503, _STOPPING, ((b"retry-after", b"1"),)) if self.busy else b"")

    def abort(self) -> None:
        """End the connection at once."""
        self._transport.abort()

    # What the exchange tells

    def write(self, head: bytes, body: bytes) -> None:
        """Send bytes, in one piece unless the copy would cost more than a second write."""
        if len(body) <= _JOIN_BELOW_BYTES:
            self._transport.write(head + body if body else head)
        else:
            self._transport.writelines((head, body))

    def body_wanted(self, expected: bool) -> None:
        """Read on; send the interim response 100 where the caller waits for it."""
        if expected:
            self._transport.write(CONTINUE)
        if not self._reading:
            self._resume()

    def end_comes_late(self) -> bool:
        """Whether more of the body is still to come than is worth reading only to drop it."""
        if self._phase is not Phase.BODY:
            return False
        assert self._exchange is not None
        return (
            self._chunked is not None or self._exchange.continue_owed or self._body_left > self._config.max_unread_bytes
        )

    def answered(self, keep: bool) -> None:
        """Go on to the next request, or end the connection."""
        self._exchange = None
        if self._transport.is_closing():
            return
        if not keep or self._owner.stopping:
            self._end_with(b"")
            return
        if self._phase is Phase.BODY:
            self._phase = Phase.UNREAD
        else:
            self._next()
        if not self._reading and len(self._held) <= self._config.max_buffered_bytes:
            self._resume()

    # Reading

    def _read(self, data: bytes) -> None:
        while data:
            if self._phase is Phase.HEAD:
                first = not self._reader.begun
                end = self._reader.feed(data)
                if end is None:
                    if first:
                        self.read_deadline_s = self._owner.later_s(self._config.head_timeout_s)
                    return
                data = self._begin(data[end:] if end < len(data) else b"")
            elif self._phase is Phase.BODY or self._phase is Phase.UNREAD:
                data = self._read_body(data)
            elif self._phase is Phase.AHEAD:
                self._held += data
                if len(self._held) > self._config.max_buffered_bytes:
                    self._pause()
                return
            else:
                return

    def _begin(self, rest: bytes) -> bytes:
        """Start the app for the request whose head was read; return what follows that request."""
        reader = self._reader
        exchange = Exchange(self, reader.scope(self._client, self._server), reader.keep_alive, reader.expects_continue)
        self._exchange = exchange
        if self._owner.stopping:
            exchange.last_of_connection()
        length = reader.content_length
        if not reader.chunked and len(rest) >= length:
            # Most bodies come with their head.
            body, rest = (rest, b"") if len(rest) == length else (rest[:length], rest[length:])
            if body:
                reader.skip(body)
            self._phase = Phase.AHEAD
            self.read_deadline_s = math.inf
            exchange.body_arrived(body, True)
        else:
            self._body_left = length
            self._chunked = ChunkedBody() if reader.chunked else None
            self._phase = Phase.BODY
            self.read_deadline_s = self._owner.later_s(self._pace.start(self._owner.now_s))
            rest = self._read_body(rest)
        exchange.task = self._loop.create_task(exchange.run(self._owner.app))
        return rest

    def _read_body(self, data: bytes) -> bytes:
        """Take a part of the body; return what follows the body."""
        if self._chunked is not None:
            pieces, end = self._chunked.feed(data)
            piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            rest = b"" if end is None else data[end:]
            complete = end is not None
        else:
            piece, rest = (
                (data, b"") if len(data) <= self._body_left else (data[: self._body_left], data[self._body_left :])
            )
            self._body_left -= len(piece)
            if piece:
                self._reader.skip(piece)
            complete = not self._body_left
        if self._exchange is not None:
            self._exchange.body_arrived(piece, complete)
        if not complete:
            self.read_deadline_s = self._owner.later_s(self._pace.arrived(len(piece), self._owner.now_s))
            if self._exchange is not None and self._exchange.buffered_bytes > self._config.max_buffered_bytes:
                self._pause()
            return b""
        self._chunked = None
        self.read_deadline_s = math.inf
        if self._exchange is None:
            self._next()
        else:
            self._phase = Phase.AHEAD
        return rest

    def _next(self) -> None:
        """Wait for the next request, or begin it where it was sent ahead."""
        self._phase = Phase.HEAD
        self.read_deadline_s = self._owner.later_s(self._config.idle_timeout_s)
        if self._held:
            held, self._held = self._held, b""
            self.data_received(held)
        if self._ended_by_peer and self._phase is Phase.HEAD:
            self._close()

    def _pause(self) -> None:
        """Read no further until the app has taken what is there; meanwhile the caller is not to blame."""
        if self._reading:
            self._reading = False
            self._transport.pause_reading()
            self.read_deadline_s = math.inf

    def _resume(self) -> None:
        self._reading = True
        if self._phase is Phase.BODY or self._phase is Phase.UNREAD:
            self.read_deadline_s = self._owner.later_s(self._pace.resume(self._owner.now_s))
        if not self._ended_by_peer and not self._transport.is_closing():
            self._transport.resume_reading()

    # Ending

    def _refuse(self, refusal: RefusalError) -> None:
        self._owner.refused(refusal.text, f"{self._client[0]}:{self._client[1]}" if self._client else "a local socket")
        self._end_with(closing_answer(refusal.status, refusal.text, refusal.headers))

    def _end_with(self, answer: bytes) -> None:
        """End the connection after `answer`, which goes out only where the request under way has none yet.

        Bytes that arrive at a closed socket reset the connection, which may cost the caller the answer (RFC 9112 9.6). So
        the writing side ends first, and for a while what arrives is read and dropped, unless the caller said itself that it
        sends no more.
        """
        exchange = self._exchange
        self._drop_exchange()
        more_may_come = self._phase is not Phase.AHEAD or bool(self._held) or self._reader.keep_alive
        self._phase = Phase.ENDING
        self._held = b""
        if exchange is not None and exchange.answer_begun:
            self.abort()
            return
        if answer:
            self._transport.write(answer)
        if not more_may_come or self._ended_by_peer:
            self._close()
            return
        self.read_deadline_s = self._owner.later_s(self._config.linger_s)
        self._watch_writing()
        self._transport.write_eof()
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()

    def _close(self) -> None:
        """Close once everything written has left, or has not for too long."""
        self._phase = Phase.ENDING
        self.read_deadline_s = math.inf
        self._watch_writing()
        self._transport.close()

    def _drop_exchange(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.end()

    def _watch_writing(self) -> None:
        self._unsent_bytes = self._transport.get_write_buffer_size()
        if self._unsent_bytes:
            self.write_deadline_s = self._owner.later_s(self._config.write_timeout_s)

    def _check_writing(self) -> None:
        left_bytes = self._transport.get_write_buffer_size()
        if self._unsent_bytes - left_bytes < self._config.min_bytes_per_s * self._config.write_timeout_s and left_bytes:
            self.abort()
            return
        self.write_deadline_s = math.inf
        self._watch_writing()


def _address(transport: asyncio.BaseTransport, side: str) -> tuple[str, int] | None:
    """Host and port of one side; None of a Unix socket."""
    found = transport.get_extra_info(side)
    return (str(found[0]), int(found[1])) if isinstance(found, (list, tuple)) and len(found) >= 2 else None
