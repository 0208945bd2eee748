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
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import uvloop

from tidegate.aws.formats import decode_pointer
from tidegate.bootstrap import Gateway, build_gateway
from tidegate.bootstrap.fallbacks import FallbackCounter
from tidegate.bootstrap.gateway_link import GatewayLink, Message, MessageKind
from tidegate.bootstrap.log_file import OFF, LogFile
from tidegate.bootstrap.parent import end_with_parent
from tidegate.bootstrap.shadow_link import LinkedShadows
from tidegate.bootstrap.workers import Workers
from tidegate.errors import StoreError, UnavailableError
from tidegate.gateway.follower import EngineFollower, FollowerConfig
from tidegate.gateway.shadow_lanes import ShadowLimits
from tidegate.listener import Listener, ListenerConfig
from tidegate.ports import Endpoint, EndpointLoad, GatewayReport, Pointer, Suspect
from tidegate.settings import Settings
from tidegate.tasks import wait_at_most

if TYPE_CHECKING:
    from tidegate.rpc.server import RpcConfig, RpcServer

BEAT_S = 1.0
"""How often the control plane hears from the gateway."""

QUEUES_S = 2.0
"""How often the servers are asked how long their own queues are."""

STORE_WAIT_S = 10.0
STATUS_WAIT_S = 2.5
"""The longest that a report of the fleet waits for the control plane, which itself waits 2 s for the stores and servers."""

SHADOWS_WAIT_S = 0.3
"""The longest that an end waits until the control plane has the last tallies of shadows."""

MOST_WORKERS = 2
LOOK_S = 0.02
MOST_LOG_CHARACTERS = 20_000

GC_THRESHOLDS = (50_000, 20, 20)
"""Requests leave hardly any cycles, and a full collection looks at every rule that is live while callers wait."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
KEPT_FREE_BYTES = 32 * 1024 * 1024
MAPPED_ABOVE_BYTES = 4 * 1024 * 1024
"""malloc keeps this much freed memory, and returns larger pieces to the kernel at once."""


class PushedDirectory:
    """An `EndpointDirectory` that the control plane fills; a lookup is one of a dictionary."""

    def __init__(self) -> None:
        self._shards: Mapping[str, tuple[Endpoint, ...]] = {}
        self._rpc_ports: Mapping[Endpoint, int | None] = {}
        self._sequence = -1

    @property
    def is_filled(self) -> bool:
        return any(self._shards.values())

    def endpoints(self, shard: str) -> Sequence[Endpoint]:
        return self._shards.get(shard, ())

    def rpc_port(self, endpoint: Endpoint) -> int | None:
        """Return the gRPC port of an endpoint; None if it has none, or is not listed any longer."""
        return self._rpc_ports.get(endpoint)

    def replace(self, sequence: int, shards: Mapping[str, Sequence[tuple[str, int, int | None]]]) -> None:
        """Take a snapshot of host, port and gRPC port of each shard's endpoints, unless a later one is known."""
        if sequence > self._sequence:
            self._sequence = sequence
            ports = {
                Endpoint(shard, host, port): rpc_port
                for shard, places in shards.items()
                for host, port, rpc_port in places
            }
            self._rpc_ports = ports
            self._shards = {shard: tuple(each for each in ports if each.shard == shard) for shard in shards}


class LinkedBundles:
    """A `BundleSource` and `GatewayReports` over the channel: the control plane asks the stores."""

    def __init__(self, link: GatewayLink) -> None:
        self._link = link

    async def pointer(self, known: Pointer | None = None) -> Pointer | None:
        tag = None if known is None else known.tag
        answer = await self._link.ask(Message(MessageKind.POINTER, {"known": tag}), STORE_WAIT_S)
        found = answer.members.get("tag")
        if found is None:
            return None
        return known if found == tag else decode_pointer(answer.payload, str(found))

    async def bundle(self, revision: str) -> bytes:
        return (await self._link.ask(Message(MessageKind.BUNDLE, {"revision": revision}), STORE_WAIT_S)).payload

    async def report(self, report: GatewayReport) -> None:
        await self._link.ask(
            Message(MessageKind.REPORT, {"revision": report.revision, "seen_at": report.seen_at}), STORE_WAIT_S
        )


class GatewayProcess:
    """The gateway's side of the channel, and a `FleetStatus`."""

    def __init__(self) -> None:
        self.directory = PushedDirectory()
        self.fallbacks = FallbackCounter()
        self.loads: Callable[[], Sequence[EndpointLoad]] = tuple
        self.stopping = asyncio.Event()
        self.grace_s = 0.0
        self.start: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._news = asyncio.Event()
        self._following = asyncio.Event()
        self._link: GatewayLink
        self._follower: EngineFollower
        self._fleet: Mapping[str, Any] | None = None
        self.gateway_shadows: Counter[str] = Counter()
        self._process_shadows: Counter[str] = Counter()

    def shadows(self, settings: Settings) -> LinkedShadows:
        limits = ShadowLimits(
            settings.shadow_timeout_ms / 1000,
            settings.shadow_in_flight,
            settings.shadow_waiting,
            settings.shadow_buffered_bytes,
        )
        return LinkedShadows(limits, settings.connect_timeout_ms, settings.max_response_bytes, self._shadows_done)

    def _shadows_done(self, counts: Counter[str], tallies: bytes) -> None:
        self._process_shadows += counts
        if tallies and self._link.is_behind:
            self._process_shadows["tallies lost"] += 1
        elif tallies:
            self._link.send(Message(MessageKind.SHADOWS, payload=tallies))

    async def end_shadows(self, shadows: LinkedShadows) -> None:
        await shadows.aclose()
        if self._process_shadows:
            # The last tallies are handled before this is answered.
            with contextlib.suppress(StoreError):
                await self._link.ask(Message(MessageKind.SHADOWS), SHADOWS_WAIT_S)

    async def handle(self, message: Message) -> Message | None:
        members = message.members
        match message.kind:
            case MessageKind.START:
                self.start.set_result(message)
            case MessageKind.DIRECTORY:
                self.directory.replace(members["sequence"], members["shards"])
            case MessageKind.POLL:
                await self._following.wait()
                await self._follower.poll()
                return Message(MessageKind.ANSWER, {"follower": dict(await self._follower.status())})
            case MessageKind.STOP:
                self.grace_s = members["grace_s"]
                self.stopping.set()
        return None

    def follow(self, link: GatewayLink, settings: Settings, gateway_id: str) -> EngineFollower:
        config = FollowerConfig(
            poll_interval_s=settings.poll_interval_s,
            report_interval_s=settings.report_interval_s,
            # It polls beside its requests, so its rules are late only where the stores are: no request waits for those.
            fresh_wait_s=0.0,
        )
        bundles = LinkedBundles(link)
        self._link = link
        # The control plane is notified of a swap before it gets the report that this gateway serves the revision.
        self._follower = EngineFollower(bundles, gateway_id, bundles, config=config, swapped=self._news.set)
        self._following.set()
        return self._follower

    def suspect(self, suspect: Suspect) -> None:
        """Report a model that callers cannot use; the dispatcher does so at most once a second for each."""
        if self._link.is_behind:
            return
        place = suspect.endpoint
        members = {"shard": place.shard, "host": place.host, "port": place.port, "model": suspect.model}
        self._link.send(Message(MessageKind.SUSPECT, {**members, "what": suspect.kind.value}))

    async def beat(self) -> None:
        """Report how late this event loop was, what is served, what fell back, and the state of the endpoints."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + BEAT_S
            self._news.clear()
            await wait_at_most(self._news, BEAT_S)
            lag_ms = max(0.0, loop.time() - due) * 1000
            if self._link.is_behind:
                continue
            fallbacks = [each.as_dict() for each in self.fallbacks.take()]
            follower = await self._follower.status()
            shadows = self.gateway_shadows + self._process_shadows
            members = {
                "lag_ms": lag_ms,
                "follower": follower,
                "fallbacks": fallbacks,
                "shadows": shadows,
                "loads": [each.as_dict() for each in self.loads()],
            }
            self._link.send(Message(MessageKind.BEAT, members))

    async def status(self) -> Mapping[str, Any]:
        """See `FleetStatus`: what the control plane says; where it does not answer in time, what it said last.

        Raises:
            UnavailableError: it has never answered.
        """
        question = Message(MessageKind.STATUS, {"follower": dict(await self._follower.status())})
        try:
            answer = await self._link.ask(question, STATUS_WAIT_S)
            self._fleet = answer.members["fleet"]
        except StoreError as error:
            if self._fleet is None:
                raise UnavailableError(str(error)) from error
            problem = f"{error}; all else here is as of {self._fleet.get('as_of')}"
            return {**self._fleet, **question.members["follower"], "healthy": False, "problems": [problem]}
        return self._fleet


class LinkedLog(logging.Handler):
    """Hands log records to the control plane, which writes them as it writes its own."""

    def __init__(self, link: GatewayLink) -> None:
        super().__init__()
        self._link = link

    def emit(self, record: logging.LogRecord) -> None:
        if self._link.is_behind:
            return
        text = record.getMessage()
        if record.exc_info:
            text = "\n".join([text, "".join(traceback.format_exception(*record.exc_info)).rstrip()])
        members = {"logger": record.name, "level": record.levelno, "text": text[:MOST_LOG_CHARACTERS]}
        self._link.send(Message(MessageKind.LOG, members))


async def serve(listener: socket.socket, channel: socket.socket) -> None:
    process = GatewayProcess()
    link = await GatewayLink.over(channel, process.handle)
    linked = asyncio.create_task(link.run())
    started = asyncio.create_task(_run(process, link, listener))
    await asyncio.wait([linked, started], return_when=asyncio.FIRST_COMPLETED)
    if not started.done():
        # Without a control plane there is nothing to wait for: its servers end, too.
        os._exit(0)
    started.result()


async def _run(process: GatewayProcess, link: GatewayLink, listener: socket.socket) -> None:
    start = (await process.start).members
    settings = Settings.from_environment(start["settings"])
    logs = logging.getLogger("tidegate")
    logs.addHandler(LinkedLog(link))
    logs.setLevel(start["log_level"])
    follower = process.follow(link, settings, start["gateway_id"])
    workers = Workers(MOST_WORKERS)
    shadows = process.shadows(settings)
    # The developer of a model reads its errors, on the machine that it runs on.
    settings = replace(settings, model_errors=settings.model_errors or "passed")
    log = None if settings.access_log in (None, OFF) else LogFile(settings.access_log)
    gateway = build_gateway(
        settings,
        follower,
        process.directory,
        process,
        observe=process.fallbacks.observe,
        suspects=process.suspect,
        offload=workers,
        shadows=shadows,
        write_line=None if log is None else log.write,
        rpc_port_of=None if start["rpc_port"] is None else process.directory.rpc_port,
    )
    process.gateway_shadows = gateway.shadow_counts
    process.loads = gateway.dispatcher.loads
    work = (follower.run(), process.beat(), gateway.dispatcher.watch_queues(QUEUES_S))
    async with contextlib.AsyncExitStack() as ending:
        if log is not None:
            ending.callback(log.close)
        ending.push_async_callback(workers.aclose)
        ending.push_async_callback(process.end_shadows, shadows)
        ending.push_async_callback(gateway.close)
        await beside(work, _serve(process, link, listener, follower, gateway, settings, start))


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
    process: GatewayProcess,
    link: GatewayLink,
    listener: socket.socket,
    follower: EngineFollower,
    gateway: Gateway,
    settings: Settings,
    start: Mapping[str, Any],
) -> None:
    """Serve callers once there are rules, until the process must stop."""
    # The first one makes a stack ready, which it is not without endpoints. A later one says what it lacks: callers wait.
    while follower.revision is None or (start["is_first"] and not process.directory.is_filled):
        await wait_at_most(process.stopping, LOOK_S)
        if process.stopping.is_set():
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
        await process.stopping.wait()
    finally:
        # At the same time: the control plane waits for the grace of one.
        await asyncio.gather(*(each.stop(process.grace_s) for each in servers))


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
    """Have malloc keep memory that was freed, instead of returning it to the kernel after each large body.

    The parts of a body are freed all at once. Returned, their pages are mapped again for the next one: 770 page faults, which take
    twice as long as all else that the gateway does for a request of 1 MB with an answer of that size. Only glibc has `mallopt`
    (https://man7.org/linux/man-pages/man3/mallopt.3.html).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, KEPT_FREE_BYTES)
        mallopt(_M_MMAP_THRESHOLD, MAPPED_ABOVE_BYTES)


def main(arguments: Sequence[str]) -> None:
    """Run until the control plane says stop, or is gone."""
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
