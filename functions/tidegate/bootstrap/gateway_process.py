"""The gateway of a local stack: a process with an event loop of its own beside the control plane, which starts it.

    python -P -m tidegate.bootstrap.gateway_process LISTENER_FD CHANNEL_FD PARENT

Everything that it knows comes through the channel (`gateway_link`): its settings, the endpoints of each shard, the live
bundle. So it needs no store, no credentials and no secret of a model server, and what happens to it says nothing about the
servers. It ends with its parent: at the end of the channel, or by the kernel's hand where it is too busy to see that.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import socket
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import uvloop

from tidegate.aws.formats import decode_pointer
from tidegate.bootstrap import build_gateway
from tidegate.bootstrap.fallbacks import FallbackCounter
from tidegate.bootstrap.gateway_link import GatewayLink, Message
from tidegate.bootstrap.parent import end_with_parent
from tidegate.bootstrap.workers import Workers
from tidegate.control.follower import EngineFollower, FollowerConfig, SourceState
from tidegate.errors import StoreError, UnavailableError
from tidegate.listener import Listener, ListenerConfig
from tidegate.ports import Endpoint, GatewayReport, Pointer, Suspect
from tidegate.settings import Settings

BEAT_S = 1.0
"""How often the control plane hears from the gateway."""

STORE_WAIT_S = 10.0
STATUS_WAIT_S = 2.5
"""The longest that a report of the fleet waits for the control plane, which itself waits 2 s for the stores and servers."""

MOST_WORKERS = 2
LOOK_S = 0.02
MOST_LOG_CHARACTERS = 20_000

GC_THRESHOLDS = (50_000, 20, 20)
"""Requests leave hardly any cycles, and a full collection looks at every rule that is live while callers wait."""


class PushedDirectory:
    """An `EndpointDirectory` that the control plane fills; a lookup is one of a dictionary."""

    def __init__(self) -> None:
        self._shards: Mapping[str, tuple[Endpoint, ...]] = {}
        self._sequence = -1

    @property
    def is_filled(self) -> bool:
        """Whether it knows any endpoint."""
        return any(self._shards.values())

    def endpoints(self, shard: str) -> Sequence[Endpoint]:
        """The endpoints of a shard that may be sent requests."""
        return self._shards.get(shard, ())

    def replace(self, sequence: int, shards: Mapping[str, Sequence[tuple[str, int]]]) -> None:
        """Take a snapshot, unless a later one is known."""
        if sequence > self._sequence:
            self._sequence = sequence
            self._shards = {
                shard: tuple(Endpoint(shard, host, port) for host, port in places) for shard, places in shards.items()
            }


class LinkedBundles:
    """A `BundleSource` and `GatewayReports` over the channel: the control plane asks the stores."""

    def __init__(self, link: GatewayLink) -> None:
        self._link = link

    async def pointer(self, known: Pointer | None = None) -> Pointer | None:
        """See `BundleSource.pointer`."""
        tag = None if known is None else known.tag
        answer = await self._link.ask(Message("pointer", {"known": tag}), STORE_WAIT_S)
        found = answer.members.get("tag")
        if found is None:
            return None
        return known if found == tag else decode_pointer(answer.payload, str(found))

    async def bundle(self, revision: str) -> bytes:
        """See `BundleSource.bundle`."""
        return (await self._link.ask(Message("bundle", {"revision": revision}), STORE_WAIT_S)).payload

    async def report(self, report: GatewayReport) -> None:
        """See `GatewayReports.report`."""
        await self._link.ask(Message("report", {"revision": report.revision, "seen_at": report.seen_at}), STORE_WAIT_S)


class GatewayProcess:
    """The gateway's side of the channel, and a `FleetStatus`."""

    def __init__(self) -> None:
        self.directory = PushedDirectory()
        self.fallbacks = FallbackCounter()
        self.stopping = asyncio.Event()
        self.grace_s = 0.0
        self.start: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._news = asyncio.Event()
        self._following = asyncio.Event()
        self._link: GatewayLink
        self._follower: EngineFollower
        self._fleet: Mapping[str, Any] | None = None

    async def handle(self, message: Message) -> Message | None:
        """Do what the control plane says."""
        members = message.members
        match message.kind:
            case "start":
                self.start.set_result(message)
            case "directory":
                self.directory.replace(members["sequence"], members["shards"])
            case "poll":
                await self._following.wait()
                await self._follower.poll()
                return Message("answer", {"follower": dict(await self._follower.status())})
            case "stop":
                self.grace_s = members["grace_s"]
                self.stopping.set()
        return None

    def follow(self, link: GatewayLink, settings: Settings, gateway_id: str) -> EngineFollower:
        """The rules that are live, as the control plane reads them."""
        config = FollowerConfig(
            poll_interval_s=settings.poll_interval_s,
            report_interval_s=settings.report_interval_s,
            # It polls beside its requests, so its rules are late only where the stores are: no request waits for those.
            fresh_wait_s=0.0,
        )
        bundles = LinkedBundles(link)
        self._link = link
        self._follower = EngineFollower(bundles, gateway_id, bundles, config=config, observer=self)
        self._following.set()
        return self._follower

    def polled(self, _state: SourceState, _age_s: float | None) -> None:
        """See `FollowerObserver`."""

    def swapped(self, _revision: str) -> None:
        """See `FollowerObserver`: the control plane hears of it before it is told that this gateway serves it."""
        self._news.set()

    def suspect(self, suspect: Suspect) -> None:
        """Report a model that callers cannot use; the dispatcher does so at most once a second for each."""
        if self._link.is_behind:
            return
        place = suspect.endpoint
        members = {"shard": place.shard, "host": place.host, "port": place.port, "model": suspect.model}
        self._link.send(Message("suspect", {**members, "what": suspect.kind.value}))

    async def beat(self) -> None:
        """Tell the control plane that this event loop turns, how late it was, what is served and what fell back."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + BEAT_S
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._news.wait()
            lag_ms = max(0.0, loop.time() - due) * 1000
            if self._link.is_behind:
                continue
            fallbacks = [each.as_dict() for each in self.fallbacks.take()]
            follower = await self._follower.status()
            self._link.send(Message("beat", {"lag_ms": lag_ms, "follower": follower, "fallbacks": fallbacks}))

    async def status(self) -> Mapping[str, Any]:
        """See `FleetStatus`: what the control plane says; where it does not answer in time, what it said last.

        Raises:
            UnavailableError: it has never answered.
        """
        question = Message("status", {"follower": dict(await self._follower.status())})
        try:
            answer = await self._link.ask(question, STATUS_WAIT_S)
            self._fleet = answer.members["fleet"]
        except StoreError as error:
            if self._fleet is None:
                raise UnavailableError(str(error)) from error
            told = f"{error}; all else here is as of {self._fleet.get('as_of')}"
            return {**self._fleet, **question.members["follower"], "well": False, "problems": [told]}
        return self._fleet


class LinkedLog(logging.Handler):
    """Hands log records to the control plane, which writes them as it writes its own."""

    def __init__(self, link: GatewayLink) -> None:
        super().__init__()
        self._link = link

    def emit(self, record: logging.LogRecord) -> None:
        """Send a record, unless the control plane reads none."""
        if self._link.is_behind:
            return
        text = record.getMessage()
        if record.exc_info:
            text = "\n".join([text, "".join(traceback.format_exception(*record.exc_info)).rstrip()])
        members = {"logger": record.name, "level": record.levelno, "text": text[:MOST_LOG_CHARACTERS]}
        self._link.send(Message("log", members))


async def serve(listener: socket.socket, channel: socket.socket) -> None:
    """Answer requests until the control plane says stop, or is gone."""
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
    # Whoever develops a model reads its errors, on the machine that it runs on.
    settings = replace(settings, model_errors=settings.model_errors or "passed")
    gateway = build_gateway(
        settings,
        follower,
        process.directory,
        process,
        observe=process.fallbacks.observe,
        suspects=process.suspect,
        offload=workers,
    )
    tasks = [asyncio.create_task(follower.run()), asyncio.create_task(process.beat())]
    try:
        # The first one makes a stack ready, which it is not without endpoints. A later one says what it lacks: callers wait.
        while follower.revision is None or (start["is_first"] and not process.directory.is_filled):
            await _first(process.stopping.wait(), asyncio.sleep(LOOK_S))
            if process.stopping.is_set():
                return
        # What lives as long as the process need not be looked at again.
        gc.collect()
        gc.freeze()
        server = Listener(gateway.app, listener_config(settings))
        await server.start(listener)
        try:
            link.send(Message("ready", {"follower": dict(await follower.status())}))
            await process.stopping.wait()
        finally:
            await server.stop(process.grace_s)
    finally:
        for task in tasks:
            task.cancel()
        await gateway.close()
        await workers.aclose()


async def _first(*awaited: Any) -> None:
    tasks = [asyncio.ensure_future(each) for each in awaited]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()


def listener_config(settings: Settings) -> ListenerConfig:
    """The limits of the listener, as the settings have them."""
    return ListenerConfig(
        max_connections=settings.max_connections,
        max_head_bytes=settings.max_header_bytes,
        head_timeout_s=settings.header_timeout_s,
        body_timeout_s=settings.body_timeout_s,
        write_timeout_s=settings.write_timeout_s,
        idle_timeout_s=settings.idle_timeout_s,
    )


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
    listener, channel = (socket.socket(fileno=each) for each in files)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(listener, channel))


if __name__ == "__main__":
    main(sys.argv[1:])
