"""A gateway in a process of its own in front of one server, with or without what it reports of its requests.

    python -P -m bench.telemetry_gateway SERVER_PORT BUNDLE [-|LOG]

It decides by the rules in the file BUNDLE. With a third argument it counts its requests, and takes the counts once a second as the
gateway of a stack does; with a log it logs each request, too. It prints its port.
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
from tidegate.bootstrap.gateway_channel import BEAT_S, PushedDirectory
from tidegate.bootstrap.gateway_process import GC_THRESHOLDS, keep_freed_memory, listener_config
from tidegate.bootstrap.log_file import LogFile
from tidegate.gateway.traffic import TrafficCounter
from tidegate.listener import Listener
from tidegate.rules import Engine, load_bundle
from tidegate.settings import Settings


class FixedRules:
    """An `EngineSource` of one engine: the copy that is compiled has no `tidegate.testing`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def engine(self) -> Engine:
        return self._engine

    def catching_up(self) -> None:
        return None


async def serve(server_port: int, bundle: Path, counts: bool, log_path: str | None) -> None:
    """Serve until the end of standard input."""
    settings, directory = Settings(), PushedDirectory()
    directory.replace(0, {"alpha": [("127.0.0.1", server_port, None)]})
    counter = TrafficCounter()
    log = None if log_path is None else LogFile(log_path)
    gateway = build_gateway(
        settings,
        FixedRules(load_bundle(bundle.read_bytes())),
        directory,
        observe=counter.observe if counts else None,
        count=counter.ended if counts else None,
        write_line=None if log is None else log.write,
    )
    listener = socket.create_server(("127.0.0.1", 0))
    await Listener(gateway.app, listener_config(settings)).start(listener)
    print(listener.getsockname()[1], flush=True)
    taking = asyncio.create_task(_take(counter))
    await asyncio.to_thread(sys.stdin.read)
    taking.cancel()
    if log is not None:
        log.close()
    await gateway.close()


async def _take(counter: TrafficCounter) -> None:
    while True:
        await asyncio.sleep(BEAT_S)
        json.dumps([counter.take(), counter.take_routes()])


def main(arguments: Sequence[str]) -> None:
    server_port, bundle, *log = arguments
    gc.set_threshold(*GC_THRESHOLDS)
    keep_freed_memory()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(server_port), Path(bundle), bool(log), log[0] if log and log[0] != "-" else None))


if __name__ == "__main__":
    main(sys.argv[1:])
