"""Writing an HTTP/1.1 request: its bytes, and a large body no faster than the server reads it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache
from typing import Any, Final

from tidegate.errors import EndpointResetError
from tidegate.header_lines import HeaderLines
from tidegate.ports import Endpoint, HttpRequest

_NUL: Final = 0x00
_LF: Final = 0x0A
_CR: Final = 0x0D
_JOIN_BELOW_BYTES: Final = 65_536
SLICE_BYTES: Final = 262_144
_LINES: Final = HeaderLines()


def serialize(endpoint: Endpoint, request: HttpRequest) -> list[bytes]:
    """Serialize a request without its `rest`. A large body is not copied, but returned after the head.

    Raises:
        ValueError: the method, the path or a header contains a line break or NUL.
    """
    body = request.body
    parts = [_start(request.method, request.path, endpoint.host, endpoint.port)]
    kept = _LINES.kept
    # As `Any`: mypyc would take each tuple apart, and make it again for the dictionary.
    headers: Iterable[Any] = request.headers
    for header in headers:
        line = kept.get(header)
        parts.append(_LINES.line(header[0], header[1]) if line is None else line)
    size_bytes = len(body) + request.rest_bytes
    has_length = size_bytes or request.method in ("POST", "PUT", "PATCH")
    parts.append(b"content-length: %d\r\n\r\n" % size_bytes if has_length else b"\r\n")
    head = b"".join(parts)
    if len(body) > _JOIN_BELOW_BYTES:
        return [head, body]
    return [head + body]


@lru_cache(maxsize=1024)
def _start(method: str, path: str, host: str, port: int) -> bytes:
    """Return the first two lines of a request."""
    line = f"{method} {path} HTTP/1.1".encode()
    if _LF in line or _CR in line or _NUL in line:
        raise ValueError("a request's method and path may not hold line breaks or NUL")
    return b"%b\r\nhost: %b:%d\r\n" % (line, host.encode(), port)


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
