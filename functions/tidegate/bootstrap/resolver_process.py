"""One of the processes of `tidegate resolve-server`: answers `/authorize` and `/v1/objectives/{objective}/resolve`.

    python -P -m tidegate.bootstrap.resolver_process FOLDER PARENT [HOST:PORT | FD] …

Its settings are its environment. It serves the bundle that its parent saves in FOLDER, and reports to it on standard output, a line
of JSON each second. Each process binds a port by itself (SO_REUSEPORT), so that the kernel shares connections among those that live;
a Unix socket is bound by the parent, and its descriptor inherited.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvloop

from tidegate import __version__
from tidegate.bootstrap import build_gateway, build_tracer
from tidegate.bootstrap.balancers import OFFERED, resolves, shard_directory
from tidegate.bootstrap.gateway_process import GC_THRESHOLDS, keep_freed_memory, listener_config
from tidegate.bootstrap.log_file import OFF, LogFile
from tidegate.bootstrap.parent import end_with_parent
from tidegate.bootstrap.resolver_reports import LOOK_S, Reports
from tidegate.bootstrap.saved_bundle import SavedBundle
from tidegate.gateway.follower import EngineFollower, FollowerConfig
from tidegate.gateway.traffic import TrafficCounter
from tidegate.listener import Listener
from tidegate.metrics.exposition import Format, negotiated
from tidegate.settings import Settings
from tidegate.web.errors import not_found, problem
from tidegate.web.http import Answer, App, Receive, Scope, Send, header_values, json_answer, json_headers

GRACE_S = 2.0

METRICS = {Format.TEXT: "metrics.txt", Format.OPENMETRICS: "metrics.openmetrics"}
"""The file of the folder in which the parent keeps the metrics of all its processes, in each format."""

EXTENSIONS = (
    "classification", "schedule_policy", "model_configuration", "binary_tensor_data", "parameters", "statistics", "generate",
)  # fmt: skip


class ResolverApp:
    """The ASGI app: what a resolver offers of a gateway's app, health, metrics, and the metadata of the server."""

    def __init__(self, app: App, follower: EngineFollower, folder: Path) -> None:
        self._app = app
        self._follower = follower
        self._folder = folder

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI)."""
        path: str = scope["path"]
        if path.startswith("/authorize/") or resolves(path):
            await self._app(scope, receive, send)
            return
        answer = self._answer(path, scope)
        await answer(scope, receive, send)

    def _answer(self, path: str, scope: Scope) -> Any:
        match path:
            case "/v2/health/live":
                return json_answer({"live": True})
            case "/v2/health/ready":
                is_ready = self._follower.revision is not None
                return json_answer({"ready": is_ready}, status=200 if is_ready else 503)
            case "/v2":
                return json_answer({"name": "tidegate", "version": __version__, "extensions": EXTENSIONS})
            case "/metrics":
                accepted = b",".join(header_values(scope["headers"], b"accept")).decode("latin-1")
                form = negotiated(accepted)
                with suppress(OSError):
                    text = (self._folder / METRICS[form]).read_bytes()
                    return Answer(200, json_headers(text, form.value.encode()), text)
        return problem(
            not_found(f"a resolver answers only {OFFERED}, /metrics, /v2, /v2/health/live and /v2/health/ready")
        )


async def serve(settings: Settings, folder: Path, places: Sequence[str]) -> None:
    """Serve until SIGTERM."""
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    # Rules on the disk are as recent as the parent's look at the store, so no request waits for the next look.
    config = FollowerConfig(poll_interval_s=LOOK_S, fresh_wait_s=0.0)
    follower = EngineFollower(SavedBundle(folder), f"resolver-{os.getpid()}", config=config)
    await follower.poll()
    counter = TrafficCounter()
    log = None if settings.access_log in (None, OFF) else LogFile(settings.access_log)
    tracer = build_tracer(settings, lambda text: print(text, file=sys.stderr, flush=True))
    gateway = build_gateway(
        settings,
        follower,
        shard_directory(settings.shard_endpoints),
        count=counter.ended,
        write_line=None if log is None else log.write,
        tracer=tracer,
        authorizes=True,
    )
    app = ResolverApp(gateway.app, follower, folder)
    gc.collect()
    gc.freeze()
    listeners = []
    for place in places:
        listener = Listener(app, listener_config(settings), gateway.app.authorization.at_once)
        await listener.start(_socket(place))
        listeners.append(listener)
    beside = [asyncio.create_task(follower.run()), asyncio.create_task(Reports(follower, counter.take_routes, 1).run())]
    stopped = asyncio.create_task(stopping.wait())
    # An error of either ends the process, and its parent starts another.
    done, _ = await asyncio.wait([*beside, stopped], return_when=asyncio.FIRST_COMPLETED)
    await asyncio.gather(*(listener.stop(GRACE_S) for listener in listeners))
    for task in done - {stopped}:
        task.result()
    for task in beside:
        task.cancel()
    await gateway.close()
    if log is not None:
        log.close()
    if tracer is not None:
        await asyncio.to_thread(tracer.close, 1.0)


def _socket(place: str) -> socket.socket:
    host, _, port = place.rpartition(":")
    if not host:
        return socket.socket(fileno=int(place))
    return bound(host, int(port))


def bound(host: str, port: int) -> socket.socket:
    """Return a socket at a port that the processes of one user share.

    Raises:
        OSError: it cannot be bound.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((host.strip("[]"), port))
    except OSError:
        listener.close()
        raise
    return listener


def main(arguments: Sequence[str]) -> None:
    """Run until SIGTERM, or the end of the parent."""
    folder, parent, *places = arguments
    end_with_parent(int(parent))
    # A terminal's Ctrl-C is for the parent, which then ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.set_threshold(*GC_THRESHOLDS)
    keep_freed_memory()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(Settings.from_environment(), Path(folder), places))


if __name__ == "__main__":
    main(sys.argv[1:])
