"""What the steps of a client send and receive. The steps are generators without I/O, so that threads and event loops share them."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from tidegate.errors import EndpointError

T = TypeVar("T")


class Request(NamedTuple):
    """A request over HTTP; `url` is that of the server, without a path."""

    url: str
    method: str
    path: str
    headers: Sequence[tuple[str, str]] = ()
    body: bytes = b""
    timeout_s: float = 10.0


class Rpc(NamedTuple):
    """A call of the protocol's service over gRPC: `ModelInfer` or `ModelMetadata`, and its message. The address is `host:port`, or with TLS
    `https://host:port`."""

    address: str
    method: str
    message: Any
    metadata: Sequence[tuple[str, str]]
    timeout_s: float


class Reply(NamedTuple):
    """An answer; names of headers are in lower case. Of an RPC that succeeded `message` is the response; of another one `status`
    is what HTTP has in place of its code, and `body` is its text."""

    status: int
    headers: Mapping[str, str] = {}
    body: bytes = b""
    message: Any = None


Ask = Request | Rpc
Steps = Generator[Ask, Reply, T]
"""Steps yield what is to be sent, are sent the reply, and return their result. An `EndpointError` is thrown into them."""


def run(steps: Steps[T], send: Callable[[Ask], Reply]) -> T:
    """Carry steps out, one exchange after the other."""
    try:
        ask = next(steps)
        while True:
            try:
                reply = send(ask)
            except EndpointError as error:
                ask = steps.throw(error)
            else:
                ask = steps.send(reply)
    except StopIteration as end:
        result: T = end.value
        return result


def reply_of(response: http.client.HTTPResponse, body: bytes) -> Reply:
    return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, body)
