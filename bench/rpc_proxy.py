"""Proxies over grpcio that do nothing but pass bytes on: what any gateway in Python adds to an RPC at least.

    python -m bench.rpc_proxy aio|sync|shaped UPSTREAM_ADDRESS

`aio` and `sync` answer as grpcio does it best; `shaped` as the gateway has to: the message is read within a time limit, and metadata is sent
before the answer.

Prints its port, and serves until it is terminated. Loop and poller are the gateway's.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import uvloop
from tidegate.bootstrap.gateway_process import GRPC_EXPERIMENTS

METHOD = "/inference.GRPCInferenceService/ModelInfer"
TIMEOUT_S = 10
CALLER_S = 30.0
THREADS = 8
METADATA = tuple(
    (f"tidegate-{name}", "a text of usual length")
    for name in ("rule", "model", "shard", "revision", "reason", "timing")
)


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
    """Has one handler for every method."""

    def __init__(self, method: grpc.RpcMethodHandler) -> None:
        self._method = method

    def service(self, _details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return self._method


@contextlib.contextmanager
def bare_proxy(kind: str, upstream: str) -> Iterator[str]:
    """Run a proxy in a process of its own; gives its address."""
    command = [sys.executable, "-m", "bench.rpc_proxy", kind, upstream]
    environment = {**os.environ, "GRPC_EXPERIMENTS": GRPC_EXPERIMENTS}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        try:
            yield f"127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


def _serve(upstream: str) -> None:
    call = grpc.insecure_channel(upstream).unary_unary(METHOD)
    method = grpc.unary_unary_rpc_method_handler(lambda request, _context: call(request, timeout=TIMEOUT_S))
    server = grpc.server(ThreadPoolExecutor(THREADS), handlers=(_Handler(method),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    server.wait_for_termination()


async def _serve_aio(upstream: str, *, is_shaped: bool) -> None:
    call = grpc.aio.insecure_channel(upstream).unary_unary(METHOD)

    async def handle(request: bytes, _context: Any) -> Any:
        return await call(request, timeout=TIMEOUT_S)

    async def handle_shaped(_requests: Any, context: Any) -> Any:
        async with asyncio.timeout(CALLER_S):
            request = await context.read()
        answer = await call(request, timeout=TIMEOUT_S)
        await context.send_initial_metadata(METADATA)
        return answer

    method = grpc.unary_unary_rpc_method_handler(handle)
    if is_shaped:
        method = grpc.stream_unary_rpc_method_handler(handle_shaped)
    server = grpc.aio.server(handlers=(_Handler(method),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    kind, address = sys.argv[1:]
    if kind == "sync":
        _serve(address)
    else:
        uvloop.run(_serve_aio(address, is_shaped=kind == "shaped"))
