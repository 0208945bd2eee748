"""The gateway of a local stack: a process with an event loop of its own beside the control plane, which starts it.

    python -P -m tidegate.bootstrap.gateway_process LISTENER_FD CHANNEL_FD PARENT

Everything that it knows comes through the channel (`gateway_link`): its settings, the endpoints of each shard, the live
bundle. So it needs no store, no credentials and no secret of a model server, and what happens to it says nothing about the
servers. It ends with its parent: at the end of the channel, or by the kernel's hand where it is too busy to see that.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import uvloop

from tidegate.bootstrap import Gateway, build_gateway, build_tracer
from tidegate.bootstrap.gateway_channel import GatewayChannel, LinkedLog
from tidegate.bootstrap.gateway_link import GatewayLink, Message, MessageKind
from tidegate.bootstrap.log_file import OFF, LogFile
from tidegate.bootstrap.parent import end_with_parent
from tidegate.bootstrap.workers import Workers
from tidegate.gateway.follower import EngineFollower
from tidegate.listener import Listener, ListenerConfig
from tidegate.settings import Settings
from tidegate.tasks import wait_at_most

if TYPE_CHECKING:
    from tidegate.rpc.server import RpcConfig, RpcServer

logger = logging.getLogger(__name__)

QUEUES_S = 2.0
"""How often the servers are asked how long their own queues are."""

TRACES_S = 1.0
"""How long the last spans may take at the end of the process."""

MOST_WORKERS = 2
LOOK_S = 0.02

GC_THRESHOLDS = (5_000, 20, 20)
"""Requests over HTTP leave no cycles, so nothing is collected for them. grpcio leaves some for each RPC, which take memory until they
are collected: 7 MB at these thresholds, 12 at ten times as many."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
KEPT_FREE_BYTES = 32 * 1024 * 1024
MAPPED_ABOVE_BYTES = 4 * 1024 * 1024
"""malloc keeps this much freed memory, and returns larger pieces to the kernel at once."""

ARENAS = 1
"""The heaps that threads allocate from. By default each of gRPC's threads gets its own, which grows for hours: a message that one thread
receives and another sends leaves a hole that only the first one can fill."""

GRPC_EXPERIMENTS = "-event_engine_client,-event_engine_listener"
"""Has grpcio read and write in the thread that waits for its events, as it did before 1.80, and not in threads of its own, which
take a quarter more CPU time for an RPC. A later grpcio that no longer can logs that it does not know the names."""


async def serve(listener: socket.socket, channel: socket.socket) -> None:
    control = GatewayChannel()
    link = await GatewayLink.over(channel, control.handle)
    linked = asyncio.create_task(link.run())
    started = asyncio.create_task(_run(control, link, listener))
    await asyncio.wait([linked, started], return_when=asyncio.FIRST_COMPLETED)
    if not started.done():
        # Without a control plane there is nothing to wait for: its servers end, too.
        os._exit(0)
    started.result()


async def _run(control: GatewayChannel, link: GatewayLink, listener: socket.socket) -> None:
    start = (await control.start).members
    settings = Settings.from_environment(start["settings"])
    logs = logging.getLogger("tidegate")
    logs.addHandler(LinkedLog(link))
    logs.setLevel(start["log_level"])
    follower = control.follow(link, settings, start["gateway_id"])
    workers = Workers(MOST_WORKERS)
    shadows = control.shadows(settings)
    # The developer of a model reads its errors, on the machine that it runs on.
    settings = replace(
        settings,
        model_errors=settings.model_errors or "passed",
        # Rules without callers.yaml tell callers apart nowhere, and it listens on this machine alone.
        bundle_readers=settings.bundle_readers or "unlisted",
    )
    log = None if settings.access_log in (None, OFF) else LogFile(settings.access_log)
    loop = asyncio.get_running_loop()

    def report(text: str) -> None:
        # The link belongs to the loop, and spans are exported by a thread.
        loop.call_soon_threadsafe(logger.warning, "%s", text)

    tracer = build_tracer(settings, report)
    gateway = build_gateway(
        settings,
        follower,
        control.directory,
        control,
        observe=control.traffic.observe,
        count=control.traffic.ended,
        suspects=control.suspect,
        offload=workers,
        shadows=shadows,
        write_line=None if log is None else log.write,
        console=control.console(settings),
        tracer=tracer,
        rpc_port_of=None if start["rpc_port"] is None else control.directory.rpc_port,
    )
    control.gateway_shadows, control.gateway_pairs = gateway.shadow_counts, gateway.shadow_pairs
    control.loads = gateway.dispatcher.loads
    work = (follower.run(), control.beat(), gateway.dispatcher.watch_queues(QUEUES_S))
    async with contextlib.AsyncExitStack() as ending:
        if log is not None:
            ending.callback(log.close)
        if tracer is not None:
            ending.push_async_callback(asyncio.to_thread, tracer.close, TRACES_S)
        ending.push_async_callback(workers.aclose)
        ending.push_async_callback(control.end_shadows, shadows)
        ending.push_async_callback(gateway.close)
        await beside(work, _serve(control, link, listener, follower, gateway, settings, start))


async def beside(work: Sequence[Coroutine[Any, Any, None]], serving: Coroutine[Any, Any, None]) -> None:
    """Run `serving`, and until its end each of `work`. An error of either ends all, so that no work is missing for long: a new
    process takes over.

    Raises:
        ExceptionGroup: the error.
    """
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(each) for each in work]
        await serving
        for task in tasks:
            task.cancel()


async def _serve(
    control: GatewayChannel,
    link: GatewayLink,
    listener: socket.socket,
    follower: EngineFollower,
    gateway: Gateway,
    settings: Settings,
    start: Mapping[str, Any],
) -> None:
    """Serve callers once there are rules, until the process must stop."""
    # The first one makes a stack ready, which it is not without endpoints. A later one says what it lacks: callers wait.
    while follower.revision is None or (start["is_first"] and not control.directory.is_filled):
        await wait_at_most(control.stopping, LOOK_S)
        if control.stopping.is_set():
            return
    # What lives as long as the process need not be looked at again.
    gc.collect()
    gc.freeze()
    servers: list[Listener | RpcServer] = []
    try:
        if start["rpc_port"] is not None:
            # Imported here, since most gateways serve no gRPC.
            from tidegate.rpc.server import RpcServer

            rpcs = RpcServer(gateway.app.parts, rpc_config(settings, start["rpc_port"]))
            await rpcs.start()
            servers.append(rpcs)
        server = Listener(gateway.app, listener_config(settings))
        await server.start(listener)
        servers.append(server)
        link.send(Message(MessageKind.READY, {"follower": dict(await follower.status())}))
        await control.stopping.wait()
    finally:
        if gateway.app.forwarder is not None:
            # Its viewers would use up the grace of requests that end.
            gateway.app.forwarder.end_streams()
        # At the same time: the control plane waits for the grace of one.
        await asyncio.gather(*(each.stop(control.grace_s) for each in servers))


def listener_config(settings: Settings) -> ListenerConfig:
    return ListenerConfig(
        max_connections=settings.max_connections,
        max_head_bytes=settings.max_header_bytes,
        head_timeout_s=settings.header_timeout_s,
        body_timeout_s=settings.body_timeout_s,
        write_timeout_s=settings.write_timeout_s,
        idle_timeout_s=settings.idle_timeout_s,
    )


def rpc_config(settings: Settings, port: int) -> RpcConfig:
    from tidegate.rpc.server import RpcConfig

    return RpcConfig(
        port=port,
        max_rpcs=settings.max_rpcs,
        max_connections=settings.max_connections,
        max_message_bytes=settings.max_body_bytes,
        max_metadata_bytes=settings.max_header_bytes,
        handshake_timeout_s=settings.header_timeout_s,
        idle_timeout_s=settings.idle_timeout_s,
    )


def keep_freed_memory() -> None:
    """Have malloc keep memory that was freed, in one heap, instead of returning it to the kernel after each large body.

    The parts of a body are freed all at once. Returned, their pages are mapped again for the next one: 770 page faults, which take
    twice as long as all else that the gateway does for a request of 1 MB with an answer of that size. Only glibc has `mallopt`
    (https://man7.org/linux/man-pages/man3/mallopt.3.html).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, KEPT_FREE_BYTES)
        mallopt(_M_MMAP_THRESHOLD, MAPPED_ABOVE_BYTES)
        mallopt(_M_ARENA_MAX, ARENAS)


def main(arguments: Sequence[str]) -> None:
    """Run until the control plane says stop, or is gone."""
    # Before anything imports grpc.
    os.environ.setdefault("GRPC_EXPERIMENTS", GRPC_EXPERIMENTS)
    *files, parent = map(int, arguments)
    # For a loop that is too busy to see the end of the channel.
    end_with_parent(parent)
    # Half of the descriptors are for callers; a shell's soft limit of 1 024 would leave them 512 connections.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # A terminal's Ctrl-C is for the parent, which then says stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.set_threshold(*GC_THRESHOLDS)
    keep_freed_memory()
    listener, channel = (socket.socket(fileno=each) for each in files)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(listener, channel))


if __name__ == "__main__":
    main(sys.argv[1:])
