"""The gRPC server of the local gateway."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import grpc
import grpc.aio

from tidegate.errors import StackError
from tidegate.rpc.service import InferenceService
from tidegate.web.parts import HandlerParts

logger = logging.getLogger(__name__)

_PING_INTERVAL_MS = 60_000
_PING_TIMEOUT_MS = 20_000


@dataclass(frozen=True, slots=True)
class RpcConfig:
    """The limits of the server.

    Attributes:
        port: the port on this machine that it serves.
        max_rpcs: the most RPCs under way; more end with RESOURCE_EXHAUSTED.
        max_connections: the most connections of callers.
        max_message_bytes: the largest message of a caller, decompressed.
        max_metadata_bytes: the largest metadata of an RPC.
        handshake_timeout_s: how long a new connection may take until its first frame.
        idle_timeout_s: how long a connection is kept without an RPC.
    """

    port: int
    max_rpcs: int
    max_connections: int
    max_message_bytes: int
    max_metadata_bytes: int
    handshake_timeout_s: float
    idle_timeout_s: float


class RpcServer:
    """Serves gRPC on 127.0.0.1.

    The port may be shared with a socket that reserves it (SO_REUSEPORT), so that no other program takes it between two
    processes of the gateway.
    """

    def __init__(self, parts: HandlerParts, config: RpcConfig) -> None:
        self._address = f"127.0.0.1:{config.port}"
        options = (
            ("grpc.so_reuseport", 1),
            ("grpc.max_concurrent_streams", config.max_rpcs),
            ("grpc.max_allowed_incoming_connections", config.max_connections),
            ("grpc.max_receive_message_length", config.max_message_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_metadata_size", config.max_metadata_bytes),
            ("grpc.absolute_max_metadata_size", config.max_metadata_bytes),
            ("grpc.server_handshake_timeout_ms", int(config.handshake_timeout_s * 1000)),
            ("grpc.max_connection_idle_ms", int(config.idle_timeout_s * 1000)),
            ("grpc.keepalive_time_ms", _PING_INTERVAL_MS),
            ("grpc.keepalive_timeout_ms", _PING_TIMEOUT_MS),
        )
        self._server = grpc.aio.server(
            handlers=InferenceService(parts).handlers(), options=options, maximum_concurrent_rpcs=config.max_rpcs
        )

    async def start(self) -> None:
        """Start serving.

        Raises:
            StackError: the port cannot be used.
        """
        try:
            self._server.add_insecure_port(self._address)
        except RuntimeError as error:
            raise StackError(f"gRPC cannot be served on {self._address}: {error}") from error
        await self._server.start()
        logger.info("serving gRPC on %s", self._address)

    async def stop(self, grace_s: float) -> None:
        """Stop: RPCs under way have `grace_s` seconds to end."""
        await self._server.stop(grace_s)
