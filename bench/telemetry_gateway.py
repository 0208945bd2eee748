"""A gateway in a process of its own in front of one server, with or without what it reports of its requests.

    python -P -m bench.telemetry_gateway SERVER_PORT [LOG]

With a log it counts its requests, takes the counts once a second as the gateway of a stack does, and logs each request. It prints its
port.
"""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop
from tidegate.bootstrap import build_gateway
from tidegate.bootstrap.gateway_channel import BEAT_S
from tidegate.bootstrap.gateway_process import GC_THRESHOLDS, keep_freed_memory, listener_config
from tidegate.bootstrap.log_file import LogFile
from tidegate.gateway.traffic import TrafficCounter
from tidegate.listener import Listener
from tidegate.ports import Endpoint
from tidegate.rules import compile_directory, load_bundle
from tidegate.settings import Settings
from tidegate.testing import MemoryEndpointDirectory, MemoryEngineSource


async def serve(server_port: int, log_path: str | None) -> None:
    """Serve until the end of standard input."""
    settings, engine = Settings(), load_bundle(compile_directory(Path("bench/rules")))
    directory = MemoryEndpointDirectory({"alpha": (Endpoint("alpha", "127.0.0.1", server_port),)})
    counter = TrafficCounter()
    log = None if log_path is None else LogFile(log_path)
    gateway = build_gateway(
        settings,
        MemoryEngineSource(engine),
        directory,
        observe=None if log is None else counter.observe,
        count=None if log is None else counter.ended,
        write_line=None if log is None else log.write,
    )
    listener = socket.create_server(("127.0.0.1", 0))
    await Listener(gateway.app, listener_config(settings)).start(listener)
    print(listener.getsockname()[1], flush=True)
    if log is not None:
        taking = asyncio.create_task(_take(counter))
    await asyncio.to_thread(sys.stdin.read)
    if log is not None:
        taking.cancel()
        log.close()
    await gateway.close()


async def _take(counter: TrafficCounter) -> None:
    while True:
        await asyncio.sleep(BEAT_S)
        json.dumps([counter.take(), counter.take_routes()])


def main(arguments: Sequence[str]) -> None:
    server_port, *log = arguments
    gc.set_threshold(*GC_THRESHOLDS)
    keep_freed_memory()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(server_port), log[0] if log else None))


if __name__ == "__main__":
    main(sys.argv[1:])
