"""Proxies over grpcio that do nothing but pass bytes on: what any gateway in Python adds to an RPC at least.

    python -m bench.rpc_proxy aio|sync UPSTREAM_ADDRESS

Prints its port, and serves until it is terminated.
"""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

METHOD = "/inference.GRPCInferenceService/ModelInfer"
TIMEOUT_S = 10
THREADS = 8


class _Handler(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpcio has no types
    """Has one handler for every method."""

    def __init__(self, handle: Any) -> None:
        self._method = grpc.unary_unary_rpc_method_handler(handle)

    def service(self, _details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return self._method


@contextlib.contextmanager
def bare_proxy(kind: str, upstream: str) -> Iterator[str]:
    """Run a proxy in a process of its own; gives its address."""
    command = [sys.executable, "-m", "bench.rpc_proxy", kind, upstream]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"127.0.0.1:{int(process.stdout.readline())}"
        finally:
            process.terminate()


def _serve(upstream: str) -> None:
    call = grpc.insecure_channel(upstream).unary_unary(METHOD)
    handler = _Handler(lambda request, _context: call(request, timeout=TIMEOUT_S))
    server = grpc.server(ThreadPoolExecutor(THREADS), handlers=(handler,))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    server.wait_for_termination()


async def _serve_aio(upstream: str) -> None:
    call = grpc.aio.insecure_channel(upstream).unary_unary(METHOD)

    async def handle(request: bytes, _context: Any) -> Any:
        return await call(request, timeout=TIMEOUT_S)

    server = grpc.aio.server(handlers=(_Handler(handle),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    if sys.argv[1] == "aio":
        asyncio.run(_serve_aio(sys.argv[2]))
    else:
        _serve(sys.argv[2])
