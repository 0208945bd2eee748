"""A connection of the listener: reads requests one after another and answers them in order."""

from __future__ import annotations

import asyncio
import math
from enum import Enum, auto
from typing import Final

from tidegate.listener.body import ArrivingBody
from tidegate.listener.exchange import Exchange
from tidegate.listener.head import HeadReader
from tidegate.listener.owner import Owner
from tidegate.listener.peer import CONTINUE, address_of, limit_silence, watch_peer
from tidegate.listener.refusal import RefusalError, closing_answer
from tidegate.listener.sending import Sending

_JOIN_BELOW_BYTES: Final = 65_536
_STOPPING: Final = "the gateway is stopping; send the request again, over a new connection"


class Phase(Enum):
    """The part of a request that arriving bytes belong to."""

    HEAD = auto()
    """A request's head; no request is in progress."""
    BODY = auto()
    """The body of the request in progress."""
    AHEAD = auto()
    """Pipelined requests: the one in progress has arrived completely."""
    UNREAD = auto()
    """The rest of the body of a request that is answered already."""
    ENDING = auto()
    """Bytes to be dropped: the connection is closing."""


class Connection(asyncio.Protocol):
    """The protocol of one connection.

    The next head is not parsed before the answer to the current request, so that answers are in order and a malformed
    request does not affect those before it. A caller that closes only its writing side gets its answer.
    """

    __slots__ = (
        "_body", "_client", "_config", "_ended_by_peer", "_exchange", "_held", "_loop", "_owner", "_phase", "_reader", "_reading",
        "_server", "_transport", "read_deadline_s", "sending",
    )  # fmt: skip

    _transport: asyncio.Transport
    sending: Sending

    def __init__(self, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self._owner = owner
        self._config = owner.config
        self._loop = loop
        self._reader = HeadReader(owner.config)
        self._phase = Phase.HEAD
        self._exchange: Exchange | None = None
        self._body = ArrivingBody(owner.config, self._reader)
        self._held = b""
        self._reading = True
        self._ended_by_peer = False
        self._client: tuple[str, int] | None = None
        self._server: tuple[str, int | None] | None = None
        self.read_deadline_s = math.inf

    # Called by the event loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # a listening socket makes stream transports
        self.sending = Sending(self._owner, self._config, self._transport)
        self._client = address_of(transport, "peername")
        self._server = address_of(transport, "sockname")
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
        """Abort if the peer closed its side within a request; one that did so after a request may still read the answer."""
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
        self.read_deadline_s = math.inf
        self._owner.closed(self)
        self.sending.resume()
        self._drop_exchange()
        self._reader.release()

    def pause_writing(self) -> None:
        self.sending.pause(self._loop)

    def resume_writing(self) -> None:
        self.sending.resume()

    # Called by the listener

    @property
    def idle(self) -> bool:
        """Whether no part of a request has arrived since the last answer."""
        return self._phase is Phase.HEAD and not self._reader.begun

    @property
    def spare(self) -> bool:
        """Whether the connection can be closed without losing an answer."""
        if self._phase is Phase.ENDING:
            return not self._transport.get_write_buffer_size()
        return self._phase is Phase.HEAD

    @property
    def busy(self) -> bool:
        """Whether a request is in progress or arriving."""
        return self._exchange is not None or (self._phase is Phase.HEAD and self._reader.begun)

    def look(self, now_s: float) -> None:
        """Enforce the time-outs that have passed."""
        if self.sending.deadline_s <= now_s and self.sending.is_stalled():
            self.abort()
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
        """Stop after the current request, or at once when idle."""
        if self._exchange is not None:
            self._exchange.last_of_connection()
        elif self.idle:
            self._close()

    def end_request(self) -> None:
        """Answer a request in progress with 503, if its answer has not begun, and close the connection."""
        if self._exchange is not None or self._phase is Phase.HEAD:
            self._end_with(closing_answer(503, _STOPPING, ((b"retry-after", b"1"),)) if self.busy else b"")

    def abort(self) -> None:
        """Close the connection at once, dropping unsent bytes."""
        self._transport.abort()

    def give_up_after(self, silent_s: float) -> None:
        """Close the connection once its peer has taken nothing of what was sent for so long."""
        limit_silence(self._transport, silent_s)

    # Called by the exchange

    def write(self, head: bytes, body: bytes) -> None:
        """Send bytes: in one write, unless joining them would cost more than a second write."""
        if len(body) <= _JOIN_BELOW_BYTES:
            self._transport.write(head + body if body else head)
        else:
            self._transport.writelines((head, body))

    def body_wanted(self, expected: bool) -> None:
        """Continue reading; send the interim response 100 if the caller waits for it."""
        if expected:
            self._transport.write(CONTINUE)
        if not self._reading:
            self._resume()

    def end_comes_late(self) -> bool:
        """Return whether too much of the body is left to read and drop it, so that the connection must close instead."""
        if self._phase is not Phase.BODY:
            return False
        assert self._exchange is not None
        return self._exchange.continue_owed or self._body.too_much_left

    def answered(self, keep: bool) -> None:
        """Continue with the next request, or close the connection."""
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

    def cut(self, at_once: bool) -> None:
        """Close the connection within an answer: after what was written, or at once."""
        self._exchange = None
        self._held = b""
        if at_once:
            self.abort()
        else:
            self._close()

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
        """Start the app for the request whose head was read; return the bytes after that request."""
        reader = self._reader
        exchange = Exchange(self, reader.scope(self._client, self._server), reader.keep_alive, reader.expects_continue)
        self._exchange = exchange
        if self._owner.stopping:
            exchange.last_of_connection()
        length = reader.content_length
        if not reader.chunked and len(rest) >= length:
            # Most bodies arrive together with their head.
            body, rest = (rest, b"") if len(rest) == length else (rest[:length], rest[length:])
            if body:
                reader.skip(body)
            self._phase = Phase.AHEAD
            self.read_deadline_s = math.inf
            exchange.body_arrived(body, True)
            at_once = self._owner.at_once
            # An answer to a caller that sends no more closes the connection, unless further requests are held, which `rest` is not.
            is_for_app = body or (rest and self._ended_by_peer) or self.sending.writable is not None
            if at_once is not None and not is_for_app and exchange.answered_by(at_once):
                return rest
        else:
            self._body.begin()
            self._phase = Phase.BODY
            self.read_deadline_s = self._owner.later_s(self._body.pace.start(self._owner.now_s))
            rest = self._read_body(rest)
        exchange.task = self._loop.create_task(exchange.run(self._owner.app))
        return rest

    def _read_body(self, data: bytes) -> bytes:
        """Process a part of the body; return the bytes after the body."""
        body = self._body
        piece, complete = body.feed(data), body.complete
        if self._exchange is not None:
            self._exchange.body_arrived(piece, complete)
        if not complete:
            self.read_deadline_s = self._owner.later_s(body.pace.arrived(len(piece), self._owner.now_s))
            if self._exchange is not None and self._exchange.buffered_bytes > self._config.max_buffered_bytes:
                self._pause()
            return b""
        rest = body.rest
        self.read_deadline_s = math.inf
        if self._exchange is None:
            self._next()
        else:
            self._phase = Phase.AHEAD
        return rest

    def _next(self) -> None:
        """Wait for the next request, or start it if it was pipelined."""
        self._phase = Phase.HEAD
        self.read_deadline_s = self._owner.later_s(self._config.idle_timeout_s)
        if self._held:
            held, self._held = self._held, b""
            self.data_received(held)
        if self._ended_by_peer and self._phase is Phase.HEAD:
            self._close()

    def _pause(self) -> None:
        """Stop reading until the app has read the buffered bytes; time-outs of the caller do not run meanwhile."""
        if self._reading:
            self._reading = False
            self._transport.pause_reading()
            self.read_deadline_s = math.inf

    def _resume(self) -> None:
        self._reading = True
        if self._phase is Phase.BODY or self._phase is Phase.UNREAD:
            self.read_deadline_s = self._owner.later_s(self._body.pace.resume(self._owner.now_s))
        if not self._ended_by_peer and not self._transport.is_closing():
            self._transport.resume_reading()

    # Ending

    def _refuse(self, refusal: RefusalError) -> None:
        self._owner.refused(refusal.text, f"{self._client[0]}:{self._client[1]}" if self._client else "a local socket")
        self._end_with(closing_answer(refusal.status, refusal.text, refusal.headers))

    def _end_with(self, answer: bytes) -> None:
        """Close the connection after `answer`, which is sent only if the answer in progress has not begun.

        Bytes that arrive at a closed socket reset the connection, which may lose the answer (RFC 9112 9.6). So the writing
        side is closed first, and arriving bytes are read and dropped for `linger_s`, unless the caller has announced that it
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
        self.sending.watch()
        self._transport.write_eof()
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()

    def _close(self) -> None:
        """Close once everything written is sent, or after `write_timeout_s` without progress."""
        self._phase = Phase.ENDING
        self.read_deadline_s = math.inf
        self.sending.watch()
        self._transport.close()

    def _drop_exchange(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.end()
