"""A gRPC client for Triton, which sends serialized messages and decodes none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from tidegate.byte_budget import UNCOUNTED_BYTES
from tidegate.errors import EndpointBusyError, EndpointError, EndpointTimeoutError
from tidegate.ports import Done, Endpoint, HttpRequest, HttpResponse, Transport
from tidegate.tasks import spawn
from tidegate.triton.connection import ResponseLimits
from tidegate.triton.repository import CHANNEL
from tidegate.triton.rpc_errors import error_response, raise_if_cancelled
from tidegate.triton.rpc_stream import RpcStream, open_stream

_READY = grpc.ChannelConnectivity.READY
_LEFT_S = 60.0

_OPTIONS = (
    # Else channels of one address would share a connection, also with those of other code in this process.
    ("grpc.use_local_subchannel_pool", 1),
    # A server that is back gets requests within this time; the default is up to two minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_retries", 0),
    ("grpc.service_config_disable_resolution", 1),
    *CHANNEL,
)


class _Channel:
    """The connection to one server, and the calls that are under way on it.

    Args:
        address: host and port of the server.
        most_bytes: the largest answer.
        unused: called when a call has ended, and no other is under way.
    """

    def __init__(self, address: str, most_bytes: int, unused: Callable[[_Channel], None]) -> None:
        options = [*_OPTIONS, ("grpc.max_receive_message_length", most_bytes)]
        self.channel = grpc.aio.insecure_channel(address, options=options)
        self.address = address
        self.calls: set[Any] = set()
        self._unused = unused
        self._methods: dict[str, Any] = {}

    def method(self, path: str, *, streams: bool) -> Any:
        """Return what calls a method with serialized messages."""
        method = self._methods.get(path)
        if method is None:
            make = self.channel.stream_stream if streams else self.channel.unary_unary
            method = self._methods[path] = make(path)
        return method

    def ended(self, call: Any) -> None:
        """Note the end of a call."""
        self.calls.discard(call)
        if not self.calls:
            self._unused(self)

    @property
    def is_connected(self) -> bool:
        return self.channel.get_state() is _READY


class RpcTransport:
    """A `Transport` of RPCs over one gRPC connection to each endpoint, and of all other requests over HTTP.

    Args:
        http: sends the other requests.
        port_of: returns the gRPC port of an endpoint, or None if it has none.
        limits: limits of the answers.
        cancels: whether a unary RPC that is not waited for any longer is cancelled, and gets a deadline. Triton before 25.03
            can crash on either (https://github.com/triton-inference-server/server/issues/7368), though not for a stream.
    """

    def __init__(
        self,
        http: Transport,
        port_of: Callable[[Endpoint], int | None],
        limits: ResponseLimits,
        *,
        cancels: bool = False,
    ) -> None:
        self._http = http
        self._port_of = port_of
        self._limits = limits
        self._cancels = cancels
        self._channels: dict[Endpoint, _Channel] = {}
        self._retired: dict[_Channel, Endpoint] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def send(
        self, endpoint: Endpoint, request: HttpRequest, timeout_s: float, done: Done | None = None
    ) -> HttpResponse:
        """See `Transport.send`."""
        if not request.is_rpc:
            return await self._http.send(endpoint, request, timeout_s, done)
        loop = asyncio.get_running_loop()
        began_s, took_s = loop.time(), None
        if request.stream_above_bytes is not None:
            return await self._stream(endpoint, request, timeout_s, done)
        try:
            response = await self._send(endpoint, request, timeout_s)
            if response.status < 400:
                took_s = loop.time() - began_s
            return response
        finally:
            if done is not None:
                done(took_s)

    def hang_up(self, endpoint: Endpoint) -> None:
        self._http.hang_up(endpoint)
        found = self._channels.get(endpoint)
        retired = [each for each, of in self._retired.items() if of == endpoint]
        for channel in retired if found is None else (found, *retired):
            for call in tuple(channel.calls):
                call.cancel()

    async def aclose(self) -> None:
        """Close every connection for RPCs."""
        channels = [*self._channels.values(), *self._retired]
        self._channels, self._retired = {}, {}
        for each in channels:
            await each.channel.close()

    def _channel(self, endpoint: Endpoint) -> _Channel:
        """Return the connection to an endpoint, which may have to be opened.

        Raises:
            EndpointError: the endpoint has no port for gRPC.
        """
        address = self._address(endpoint)
        if address is None:
            raise EndpointError("the server has no port for gRPC")
        found = self._channels.get(endpoint)
        if found is None or found.address != address:
            self._retire()
            found = self._channels[endpoint] = _Channel(address, self._limits.most_bytes, self._close_retired)
        return found

    def _address(self, endpoint: Endpoint) -> str | None:
        port = self._port_of(endpoint)
        return None if port is None else f"{endpoint.host}:{port}"

    def _retire(self) -> None:
        """Give up the connections to addresses that endpoints no longer have. Each is closed once its last call has ended."""
        for endpoint, each in list(self._channels.items()):
            if each.address != self._address(endpoint):
                del self._channels[endpoint]
                self._retired[each] = endpoint
                if not each.calls:
                    self._close_retired(each)

    def _close_retired(self, channel: _Channel) -> None:
        if self._retired.pop(channel, None) is not None:
            spawn(self._closing, channel.channel.close())

    async def _stream(
        self, endpoint: Endpoint, request: HttpRequest, timeout_s: float, done: Done | None
    ) -> HttpResponse:
        try:
            channel = self._channel(endpoint)
        except EndpointError:
            if done is not None:
                done(None)
            raise
        call = channel.method(request.path, streams=True)(metadata=_metadata(request))
        channel.calls.add(call)

        def ended(took_s: float | None) -> None:
            channel.ended(call)
            if done is not None:
                done(took_s)

        stream = RpcStream(call, lambda: channel.is_connected, self._limits.budget, ended)
        return await open_stream(stream, request.body, timeout_s)

    async def _send(self, endpoint: Endpoint, request: HttpRequest, timeout_s: float) -> HttpResponse:
        channel = self._channel(endpoint)
        metadata = _metadata(request)
        limit_s = timeout_s if self._cancels else None
        call = channel.method(request.path, streams=False)(request.body, timeout=limit_s, metadata=metadata)
        channel.calls.add(call)
        # Not before: one that goes on can still be hung up, and keeps its connection.
        call.add_done_callback(channel.ended)
        try:
            if not self._cancels:
                await self._ended(channel, call, len(request.body), timeout_s)
            body = await call
        except grpc.aio.AioRpcError as error:
            return error_response(error, channel.is_connected)
        except asyncio.CancelledError:
            raise_if_cancelled()
            raise EndpointTimeoutError("the server answers nothing", sent=channel.is_connected) from None
        if len(body) <= UNCOUNTED_BYTES:
            return HttpResponse(200, (), body)
        lease = self._limits.budget.lease(len(body))
        if lease is None:
            raise EndpointBusyError("answers hold as many bytes as they may (max_buffered_bytes)", sent=True)
        return HttpResponse(200, (), body, lease)

    async def _ended(self, channel: _Channel, call: Any, size_bytes: int, timeout_s: float) -> None:
        """Wait for the end of an RPC. If that is not waited for any longer, the RPC goes on for at most `_LEFT_S` seconds.

        Raises:
            EndpointTimeoutError: there is no answer in time.
        """
        # Not the call itself, which is cancelled with what awaits it.
        loop = asyncio.get_running_loop()
        ended = loop.create_future()

        def end(_call: object) -> None:
            if not ended.done():
                ended.set_result(None)

        call.add_done_callback(end)
        late = loop.call_later(timeout_s, end, call)
        try:
            await ended
        finally:
            late.cancel()
            if not call.done():
                is_connected = self._leave(channel, call, size_bytes)
        if not call.done():
            raise EndpointTimeoutError("no answer within the attempt's time", sent=is_connected)

    def _leave(self, channel: _Channel, call: Any, size_bytes: int) -> bool:
        """Let an RPC go on by itself, if its server may have got it; return whether it may."""
        loop, budget = asyncio.get_running_loop(), self._limits.budget
        is_connected = channel.is_connected
        # Without a connection, no server has got it, and none shall.
        limit = loop.call_later(_LEFT_S if is_connected else 0.0, call.cancel)
        budget.count(size_bytes)

        def ended(_call: object) -> None:
            limit.cancel()
            budget.give(size_bytes)

        call.add_done_callback(ended)
        return is_connected


def _metadata(request: HttpRequest) -> tuple[tuple[str, str], ...]:
    return tuple([(name.decode("ascii"), value.decode("ascii")) for name, value in request.headers])
