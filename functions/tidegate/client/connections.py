"""Connections of a client whose callers are threads: HTTP/1.1, kept alive, by the standard library."""

from __future__ import annotations

import contextlib
import http.client
import os
import ssl
import time
from collections import deque
from urllib.parse import urlsplit

from tidegate.client.exchange import Reply, Request, reply_of
from tidegate.errors import EndpointRefusedError, EndpointResetError, EndpointTimeoutError

MOST_IDLE = 16
"""Idle connections that are kept to one server."""

_PIECE_BYTES = 256 * 1024
_STALE = (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError)


class Connections:
    """Idle connections by server. Any number of threads may send at a time, each on a connection of its own."""

    def __init__(self, connect_timeout_s: float) -> None:
        self._connect_timeout_s = connect_timeout_s
        self._idle: dict[str, deque[http.client.HTTPConnection]] = {}
        self._owner = os.getpid()
        self._tls: ssl.SSLContext | None = None

    def send(self, request: Request) -> Reply:
        """Send a request, and once more, on a new connection, where the server had closed the idle one meanwhile.

        Raises:
            EndpointError: no whole response came.
        """
        deadline_s = time.monotonic() + request.timeout_s
        idle = self._idle_of(request.url)
        with contextlib.suppress(IndexError):
            connection = idle.pop()
            try:
                return self._exchange(connection, request, deadline_s, idle)
            except EndpointResetError as error:
                if not error.stale:
                    raise
        # The other idle ones may be as stale, and a server that acts on requests and ends the connection gets it twice at most.
        return self._exchange(self._opened(request, deadline_s), request, deadline_s, idle)

    def close(self) -> None:
        """Close the idle connections."""
        for idle in self._idle.values():
            while idle:
                idle.pop().close()

    def _idle_of(self, url: str) -> deque[http.client.HTTPConnection]:
        if self._owner != os.getpid():
            # Two processes must not send on one connection: those of the parent stay its own.
            self._idle, self._owner = {}, os.getpid()
        return self._idle.setdefault(url, deque())

    def _opened(self, request: Request, deadline_s: float) -> http.client.HTTPConnection:
        parts = urlsplit(request.url)
        limit_s = min(self._connect_timeout_s, _left(request, deadline_s))
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            # Reading the authorities takes as long as a request.
            self._tls = self._tls or ssl.create_default_context()
            connection = http.client.HTTPSConnection(
                parts.hostname or "", parts.port, timeout=limit_s, context=self._tls
            )
        else:
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=limit_s)
        try:
            connection.connect()
        except OSError as error:
            connection.close()
            raise EndpointRefusedError(f"{request.url} cannot be reached: {type(error).__name__}") from None
        return connection

    def _exchange(
        self,
        connection: http.client.HTTPConnection,
        request: Request,
        deadline_s: float,
        idle: deque[http.client.HTTPConnection],
    ) -> Reply:
        was_used = getattr(connection, "was_used", False)
        done = answered = False
        try:
            assert connection.sock is not None
            connection.sock.settimeout(_left(request, deadline_s))
            connection.request(request.method, request.path, request.body or None, dict(request.headers))
            connection.sock.settimeout(_left(request, deadline_s))
            response = connection.getresponse()
            answered = True
            while response.status < 200:
                # Of interim answers http.client skips 100 alone.
                connection.sock.settimeout(_left(request, deadline_s))
                response.headers = None  # type: ignore[assignment]
                response.begin()
            pieces = []
            while piece := response.read(_PIECE_BYTES):
                pieces.append(piece)
                if connection.sock is not None:
                    connection.sock.settimeout(_left(request, deadline_s))
            done = not response.will_close
            return reply_of(response, b"".join(pieces))
        except TimeoutError:
            raise _late(request) from None
        except (OSError, http.client.HTTPException) as error:
            stale = was_used and not answered and isinstance(error, _STALE)
            what = f"{request.url} ended the connection: {type(error).__name__}"
            raise EndpointResetError(what, stale=stale) from None
        finally:
            if done and len(idle) < MOST_IDLE:
                connection.was_used = True  # type: ignore[attr-defined]
                idle.append(connection)
            else:
                connection.close()


def _left(request: Request, deadline_s: float) -> float:
    """Return the seconds until a deadline.

    Raises:
        EndpointTimeoutError: it has passed.
    """
    left_s = deadline_s - time.monotonic()
    if left_s <= 0:
        raise _late(request)
    return left_s


def _late(request: Request) -> EndpointTimeoutError:
    return EndpointTimeoutError(f"{request.url} did not answer within {request.timeout_s:.3g} s")
