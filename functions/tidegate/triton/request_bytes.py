"""Writing an HTTP/1.1 request: its bytes, and a large body no faster than the server reads it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from tidegate.errors import EndpointResetError
from tidegate.ports import Endpoint, HttpRequest

_JOIN_BELOW_BYTES = 65_536
_SLICE_BYTES = 262_144


def serialize(endpoint: Endpoint, request: HttpRequest) -> list[bytes]:
    """Serialize a request without its `rest`. A large body is not copied, but returned after the head.

    Raises:
        ValueError: the method, the path or a header contains a line break.
    """
    body = request.body
    lines: list[Any] = [f"{request.method} {request.path} HTTP/1.1\r\nhost: {endpoint.host}:{endpoint.port}".encode()]
    for name, value in request.headers:
        lines.append(b"%b: %b" % (name, value))
    size_bytes = len(body) + request.rest_bytes
    if size_bytes or request.method in ("POST", "PUT", "PATCH"):
        lines.append(b"content-length: %d" % size_bytes)
    lines.append(b"\r\n")
    head = b"\r\n".join(lines)
    breaks = len(lines) + 1
    if head.count(b"\n") != breaks or head.count(b"\r") != breaks:
        raise ValueError("a request's method, path and headers may not hold line breaks")
    if len(body) > _JOIN_BELOW_BYTES:
        return [head, body]
    return [head + body]


async def write_paced(
    write: Callable[[bytes | memoryview], None],
    drained: Callable[[], Awaitable[None]],
    data: list[bytes],
    request: HttpRequest,
) -> None:
    """Write a serialized request and its `rest`, and wait until each piece is `drained`.

    Raises:
        EndpointResetError: `rest` is not as long as announced.
    """
    for piece in data:
        view = memoryview(piece)
        for start in range(0, len(view), _SLICE_BYTES):
            write(view[start : start + _SLICE_BYTES])
            await drained()
    if request.rest is None:
        return
    sent_bytes = 0
    async for chunk in request.rest:
        sent_bytes += len(chunk)
        if sent_bytes > request.rest_bytes:
            # The server would read the surplus as the next request.
            raise EndpointResetError("the request's body is longer than announced")
        write(chunk)
        await drained()
    if sent_bytes != request.rest_bytes:
        raise EndpointResetError("the request's body ended early")
