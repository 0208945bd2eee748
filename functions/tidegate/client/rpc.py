"""Calls over gRPC, by grpcio and the messages that tritonclient has. Nothing here is imported before it is used."""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import Any, Final

from tidegate.client.exchange import Reply, Rpc
from tidegate.client.tensors import grpc_messages, grpc_module
from tidegate.errors import EndpointRefusedError, EndpointResetError, EndpointTimeoutError
from tidegate.oip.error_texts import unserved_model

_SERVICE = "/inference.GRPCInferenceService/"
_STATUSES = {
    "INVALID_ARGUMENT": 400,
    "UNAUTHENTICATED": 401,
    "PERMISSION_DENIED": 403,
    "NOT_FOUND": 404,
    "UNIMPLEMENTED": 501,
    "RESOURCE_EXHAUSTED": 503,
    "UNAVAILABLE": 503,
}
"""The statuses that HTTP has for codes; 500 for any other."""

_REFUSED: Final = re.compile("failed to connect|connection refused", re.IGNORECASE)
"""In gRPC's own text where it had no connection to send on."""

_OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def new_channel(address: str, module: Any) -> Any:
    """Return a channel of `grpc` or `grpc.aio` to `host:port`, or with TLS to `https://host:port`.

    TLS trusts the authorities of Python's `ssl`, where these are in one file, such as that of `SSL_CERT_FILE`; else those of gRPC.
    """
    place = address.removeprefix("https://")
    if place == address:
        return module.insecure_channel(place, options=_OPTIONS)
    trusted = ssl.get_default_verify_paths().cafile
    roots = None if trusted is None else Path(trusted).read_bytes()
    credentials = grpc_module().ssl_channel_credentials(roots)
    return module.secure_channel(place, credentials, options=_OPTIONS)


class RpcChannels:
    """Channels by address, for threads."""

    def __init__(self) -> None:
        self._channels: dict[str, Any] = {}

    def send(self, rpc: Rpc) -> Reply:
        """Carry an RPC out. Raises `EndpointError`: no answer of the server came."""
        try:
            message = self._method(rpc)(rpc.message, timeout=rpc.timeout_s, metadata=tuple(rpc.metadata))
        except grpc_module().RpcError as error:
            return _failed(rpc, error)
        return Reply(200, message=message)

    def close(self) -> None:
        while self._channels:
            self._channels.popitem()[1].close()

    def _method(self, rpc: Rpc) -> Any:
        channel = self._channels.get(rpc.address)
        if channel is None:
            channel = self._channels[rpc.address] = new_channel(rpc.address, grpc_module())
        return _method_of(channel, rpc)


class AsyncRpcChannels:
    """Channels by address, of one event loop."""

    def __init__(self) -> None:
        self._channels: dict[str, Any] = {}

    async def send(self, rpc: Rpc) -> Reply:
        """Carry an RPC out. Raises `EndpointError`: no answer of the server came."""
        channel = self._channels.get(rpc.address)
        if channel is None:
            channel = self._channels[rpc.address] = new_channel(rpc.address, grpc_module().aio)
        try:
            message = await _method_of(channel, rpc)(rpc.message, timeout=rpc.timeout_s, metadata=tuple(rpc.metadata))
        except grpc_module().RpcError as error:
            return _failed(rpc, error)
        return Reply(200, message=message)

    async def close(self) -> None:
        while self._channels:
            await self._channels.popitem()[1].close()


def _method_of(channel: Any, rpc: Rpc) -> Any:
    response = getattr(grpc_messages(), f"{rpc.method}Response")
    return channel.unary_unary(
        _SERVICE + rpc.method,
        request_serializer=type(rpc.message).SerializeToString,
        response_deserializer=response.FromString,
    )


def _failed(rpc: Rpc, error: Any) -> Reply:
    """Return an error of the server.

    Raises:
        EndpointError: this side made the error, or may have: UNAVAILABLE is the code of a connection that ended, too.
    """
    code, text = error.code().name, error.details() or ""
    if code == "DEADLINE_EXCEEDED":
        raise EndpointTimeoutError(f"{rpc.address} did not answer within {rpc.timeout_s:.3g} s")
    if code == "UNAVAILABLE" and unserved_model(text) is None:
        if _REFUSED.search(text):
            raise EndpointRefusedError(f"{rpc.address} cannot be reached")
        raise EndpointResetError(f"{rpc.address} is unavailable, or ended the connection")
    return Reply(_STATUSES.get(code, 500), body=text.encode())
