"""Writing an HTTP/1.1 request: its bytes, and a large body no faster than the server reads it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from tidegate.errors import EndpointResetError
from tidegate.ports import Endpoint, HttpRequest

_LF, _CR = 0x0A, 0x0D
_JOIN_BELOW_BYTES: Final = 65_536
SLICE_BYTES: Final = 262_144


def serialize(endpoint: Endpoint, request: HttpRequest) -> list[bytes]:
    """Serialize a request without its `rest`. A large body is not copied, but returned after the head.

    Raises:
        ValueError: the method, the path or a header contains a line break.
    """
    body = request.body
    # What may hold a break is every second part.
    line = f"{request.method} {request.path} HTTP/1.1".encode()
    parts = [b"", line, b"\r\nhost: ", f"{endpoint.host}:{endpoint.port}".encode()]
    for name, value in request.headers:
        parts.append(b"\r\n")
        parts.append(name)
        parts.append(b": ")
        parts.append(value)
    text = b"".join(parts[1::2])
    if _LF in text or _CR in text:
        raise ValueError("a request's method, path and headers may not hold line breaks")
    size_bytes = len(body) + request.rest_bytes
    if size_bytes or request.method in ("POST", "PUT", "PATCH"):
        parts.append(b"\r\ncontent-length: %d" % size_bytes)
    parts.append(b"\r\n\r\n")
    head = b"".join(parts)
    if len(body) > _JOIN_BELOW_BYTES:
        return [head, body]
    return [head + body]


async def write_paced(
    write: Callable[[bytes | memoryview], None],
    drained: Callable[[], Awaitable[None]],
    left: memoryview,
    request: HttpRequest,
) -> None:
    """Write what is `left` of a request whose beginning was written, and its `rest`, each piece once those before are `drained`.

    Raises:
        EndpointResetError: `rest` is not as long as announced.
    """
    await drained()
    for start in range(0, len(left), SLICE_BYTES):
        write(left[start : start + SLICE_BYTES])
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
