"""Runs the gateway of a local stack in a process of its own: starts it, supplies what it needs, and replaces it.

The listening socket stays here, so that connections wait in its queue while there is no gateway.
A silent gateway is reported, and replaced only after a long silence, so that one slow request does not cut off all others.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from tidegate.aws.formats import encode_pointer
from tidegate.bootstrap.console_link import answered
from tidegate.bootstrap.gateway_link import GatewayLink, Message, MessageKind
from tidegate.bootstrap.incidents import GatewayRestarts, Incidents
from tidegate.bootstrap.log_file import STDOUT
from tidegate.bootstrap.parent import environment_without_secrets
from tidegate.console.traffic import TrafficHistory
from tidegate.errors import StackError, StoreError
from tidegate.ports import (
    BundleSource,
    Endpoint,
    EndpointLoad,
    GatewayReport,
    GatewayReports,
    Pointer,
    Suspect,
    SuspectKind,
)
from tidegate.ports.bundle_store import iso_time
from tidegate.settings import Settings
from tidegate.shadows.counts import nested
from tidegate.tasks import cancel

logger = logging.getLogger(__name__)

REQUEST_GRACE_S = 3.0
"""How long requests under way may go on after a stop; with the bound on stopping Triton it stays below 10 s."""

ENDING_S = 2.5
"""How much longer the process may take to end: a second for the last bytes of answers, and one to close its log and its children."""

TICK_S = 1.0
SILENT_S = 3.0
"""A gateway that sent nothing for this long is reported; it sends a beat every second."""

REPLACED_S = 60.0
"""A gateway that sent nothing for this long is killed and replaced."""

POLL_WAIT_S = 2.0
FIRST_BACKOFF_S = 0.5
LONGEST_BACKOFF_S = 5.0
SHORT_LIFE_S = 5.0
FAILED_STARTS = 3
"""So many gateways in a row that end before any was ready end the start of the stack."""

NOT_HEARD: Mapping[str, Any] = {
    "source": {"state": "unknown", "age_s": None, "failures": 0, "last_error": None},
}

Report = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]
"""Returns the fleet's status, given what the gateway reports of the rules that it serves."""


class GatewayState(StrEnum):
    """A gateway's process: not answering yet, answering, or silent for `SILENT_S`."""

    STARTING = "starting"
    SERVING = "serving"
    SILENT = "silent"


@dataclass(frozen=True, slots=True)
class GatewayContact:
    """The dependencies of a gateway's process.

    Attributes:
        gateway_id: its name in the registry.
        registry: gets its reports of the revision that it serves.
        suspect: gets each model that callers cannot use, and where.
        tally: gets the tallies of shadows, as JSON that is not trusted.
        count: gets what the gateway counted of each pair, as JSON values that are not trusted.
        console: the console's ASGI app; None: it is off.
        rpc_port: its port for gRPC; None: it serves none.
        rpc_port_of: returns the gRPC port of an endpoint, or None if it has none.
    """

    settings: Settings
    gateway_id: str
    bundles: BundleSource
    registry: GatewayReports
    report: Report
    suspect: Callable[[Suspect], None]
    tally: Callable[[bytes], None]
    count: Callable[[Any], None]
    console: Any
    rpc_port: int | None
    rpc_port_of: Callable[[Endpoint], int | None]


class GatewaySupervisor:
    """Keeps one gateway running, until cancelled.

    It serves `listener`, a bound socket, which is closed when this ends. It runs the compiled copy of this package in the
    folder `compiled`, if there is one.
    """

    def __init__(
        self, listener: socket.socket, contact: GatewayContact, incidents: Incidents, compiled: Path | None = None
    ) -> None:
        self._listener = listener
        self._compiled = compiled
        self._contact = contact
        self._incidents = incidents
        self._shards: Mapping[str, Sequence[Endpoint]] | None = None
        self._sequence = 0
        self._sent = 0
        self._process: asyncio.subprocess.Process | None = None
        self._link: GatewayLink | None = None
        self._pointer: Pointer | None = None
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._was_ready = False
        self._silent_s = 0.0
        self._lag_ms = 0.0
        self._loads: Sequence[EndpointLoad] = ()
        self._shadows: Counter[str] = Counter()
        # Of the processes before: each one counts from zero.
        self._shadows_before: Counter[str] = Counter()
        self._why_ended: str | None = None
        self._started_at = time.time()
        self.state = GatewayState.STARTING
        self.restarts = GatewayRestarts()
        self.follower: Mapping[str, Any] = NOT_HEARD
        self.traffic = TrafficHistory()

    async def run(self) -> None:
        """Run until cancelled; then requests under way have `REQUEST_GRACE_S`, and the process is gone."""
        backoff_s, failures = 0.0, 0
        try:
            while True:
                began = time.monotonic()
                how = await self._one()
                logger.error("the gateway's process %s; starting another", how)
                self.restarts = GatewayRestarts(self.restarts.count + 1, time.time(), how)
                failures = 0 if self._was_ready else failures + 1
                if failures >= FAILED_STARTS and not self._ready.done():
                    self._ready.set_exception(StackError(f"the gateway does not start: its process {how}"))
                    # Whoever starts the stack may have failed before it asks.
                    self._ready.exception()
                short = time.monotonic() - began < SHORT_LIFE_S
                await asyncio.sleep(backoff_s)
                backoff_s = min(LONGEST_BACKOFF_S, max(FIRST_BACKOFF_S, 2 * backoff_s)) if short else 0.0
        finally:
            self._listener.close()

    async def ready(self) -> None:
        """Wait until requests are answered. Raises `StackError`: they never will be."""
        await asyncio.shield(self._ready)

    def show(self, shards: Mapping[str, Sequence[Endpoint]]) -> None:
        self._shards = shards
        self._sequence += 1
        # One that does not read now gets them with its next beat.
        if self._link is not None and not self._link.is_behind:
            self._send_endpoints(self._link)

    async def poll(self) -> None:
        """Have the gateway look for the live revision now, and wait briefly; one that does not answer looks later."""
        if self._link is not None:
            with contextlib.suppress(StoreError):
                self._take_follower((await self._link.ask(Message(MessageKind.POLL), POLL_WAIT_S)).members)

    @property
    def lag_s(self) -> float:
        """How late the gateway's event loop was when it reported last."""
        return self._lag_ms / 1000.0

    @property
    def shadows(self) -> Counter[str]:
        """What became of the requests that shadows sampled since the start of the stack: see `tidegate.shadows.counts`."""
        return self._shadows_before + self._shadows

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values: see docs/control-plane.md, "Fleet status"."""
        return {
            "pid": None if self._process is None else self._process.pid,
            "state": self.state.value,
            "compiled": self._compiled is not None,
            "grpc": None if self._contact.rpc_port is None else f"127.0.0.1:{self._contact.rpc_port}",
            "started_at": iso_time(self._started_at),
            "silent_s": round(self._silent_s),
            "lag_ms": round(self._lag_ms),
            "endpoints": [_shown_load(each) for each in self._loads],
            "shadows": nested(self._shadows),
        }

    def problems(self) -> Iterator[str]:
        if self.state is GatewayState.SILENT:
            yield (
                f"the gateway (process {self.as_dict()['pid']}) does not answer: nothing was heard of it for "
                f"{self._silent_s:.0f} s; it is replaced after {REPLACED_S:.0f}"
            )
        elif self.state is GatewayState.STARTING and self._ready.done():
            yield "the gateway is being started again; requests wait for it"

    async def _one(self) -> str:
        """Run one process until it has ended. Return how it ended, in words."""
        self.state, self._was_ready, self._silent_s, self._why_ended = GatewayState.STARTING, False, 0.0, None
        self._pointer, self._loads = None, ()
        self._shadows_before, self._shadows = self.shadows, Counter()
        near, far = socket.socketpair()
        with far:
            try:
                process = await self._spawn(far)
            except BaseException as error:
                # A process that was started already ends with the channel.
                near.close()
                if isinstance(error, OSError):
                    return f"cannot be started: {error}"
                raise
        self._process, self._started_at = process, time.time()
        ended = asyncio.create_task(process.wait())
        link = await GatewayLink.over(near, self._handle)
        linked = asyncio.create_task(link.run())
        watching = asyncio.create_task(self._watch(process))
        try:
            self._link = link
            self._send_start(link)
            code = await asyncio.shield(ended)
        except asyncio.CancelledError:
            await self._stop(process, ended, link)
            raise
        finally:
            self._link, self._process = None, None
            await cancel(watching, linked)
        return self._why_ended or _how(code)

    async def _spawn(self, channel: socket.socket) -> asyncio.subprocess.Process:
        files = (self._listener.fileno(), channel.fileno())
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "tidegate.bootstrap.gateway_process",
            *map(str, files),
            str(os.getpid()),
            stdin=asyncio.subprocess.DEVNULL,
            # The one line on standard output is the stack's, unless requests are logged there.
            stdout=None if self._contact.settings.access_log == STDOUT else asyncio.subprocess.DEVNULL,
            pass_fds=files,
            env=self._environment(),
            # Ctrl-C in a terminal is for this process, which then ends the gateway.
            start_new_session=True,
        )

    def _environment(self) -> dict[str, str]:
        variables = environment_without_secrets()
        if self._compiled is not None:
            variables["PYTHONPATH"] = os.pathsep.join(filter(None, (str(self._compiled), variables.get("PYTHONPATH"))))
        return variables

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Count the seconds of silence in turns of this event loop, so that its own delays are not held against the gateway."""
        while True:
            await asyncio.sleep(TICK_S)
            self._silent_s += TICK_S
            if self._silent_s >= SILENT_S and self.state is GatewayState.SERVING:
                self.state = GatewayState.SILENT
                logger.warning("the gateway (process %d) has not been heard of for %.0f s", process.pid, self._silent_s)
            if self._silent_s >= REPLACED_S:
                self._why_ended = f"was not heard of for {REPLACED_S:.0f} s and was ended"
                process.kill()
                return

    async def _stop(self, process: asyncio.subprocess.Process, ended: asyncio.Task[int], link: GatewayLink) -> None:
        # From here on a caller is refused at once.
        self._listener.close()
        if self.state is not GatewayState.SILENT:
            link.send(Message(MessageKind.STOP, {"grace_s": REQUEST_GRACE_S}))
            await asyncio.wait([ended], timeout=REQUEST_GRACE_S + ENDING_S)
        if not ended.done():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await asyncio.wait([ended])

    def _send_start(self, link: GatewayLink) -> None:
        # It opens the servers' management, which is nothing for the process that reads what strangers send.
        settings = replace(self._contact.settings, management_secret=None)
        level = logging.getLogger("tidegate").getEffectiveLevel()
        members = {
            "settings": settings.to_environment(),
            "gateway_id": self._contact.gateway_id,
            "log_level": level,
            "rpc_port": self._contact.rpc_port,
            "is_first": not self._ready.done(),
        }
        link.send(Message(MessageKind.START, members))
        if self._shards is not None:
            self._send_endpoints(link)

    def _send_endpoints(self, link: GatewayLink) -> None:
        port_of = self._contact.rpc_port_of
        shards = {
            shard: [(each.host, each.port, port_of(each)) for each in group]
            for shard, group in (self._shards or {}).items()
        }
        link.send(Message(MessageKind.DIRECTORY, {"sequence": self._sequence, "shards": shards}))
        self._sent = self._sequence

    async def _handle(self, message: Message) -> Message | None:
        """Handle a message of the gateway. Every value is checked, as the gateway reads what strangers send."""
        members = message.members
        match message.kind:
            case MessageKind.READY | MessageKind.BEAT:
                self._heard(message)
            case MessageKind.POINTER:
                return await self._read_pointer(members.get("known"))
            case MessageKind.BUNDLE:
                return Message(MessageKind.ANSWER, payload=await self._contact.bundles.bundle(str(members["revision"])))
            case MessageKind.REPORT:
                report = GatewayReport(self._contact.gateway_id, str(members["revision"]), float(members["seen_at"]))
                await self._contact.registry.report(report)
            case MessageKind.STATUS:
                self._take_follower(members)
                return Message(MessageKind.ANSWER, {"fleet": dict(await self._contact.report(self.follower))})
            case MessageKind.SUSPECT:
                place = Endpoint(str(members["shard"]), str(members["host"]), int(members["port"]))
                self._contact.suspect(Suspect(place, str(members["model"]), SuspectKind(members["what"])))
            case MessageKind.SHADOWS if message.payload:
                self._contact.tally(message.payload)
            case MessageKind.SAMPLED:
                self._contact.count(members["pairs"])
            case MessageKind.CONSOLE if self._contact.console is not None:
                return await answered(self._contact.console, message)
            case MessageKind.LOG:
                _log(members)
        return None

    def _heard(self, message: Message) -> None:
        if self.state is GatewayState.SILENT:
            logger.warning("the gateway is heard of again, after %.0f s", self._silent_s)
        self._silent_s = 0.0
        if self._link is not None and self._sent != self._sequence:
            self._send_endpoints(self._link)
        self._take_follower(message.members)
        if message.kind is MessageKind.READY or self._was_ready:
            self._was_ready, self.state = True, GatewayState.SERVING
            if not self._ready.done():
                self._ready.set_result(None)
        if message.kind is MessageKind.BEAT:
            members = message.members
            self._lag_ms = float(members["lag_ms"])
            self._loads = [EndpointLoad.from_dict(each) for each in members["loads"]]
            self._shadows = Counter({str(name): int(count) for name, count in members["shadows"].items()})
            for key, tally in self.traffic.add(members["traffic"], float(members["covered_s"]), time.time()):
                self._incidents.count(key, tally)
            self.traffic.add_routes(members["routes"])

    def _take_follower(self, members: Mapping[str, Any]) -> None:
        if isinstance(follower := members.get("follower"), dict):
            self.follower = follower

    async def _read_pointer(self, tag: Any) -> Message:
        """Answer with the pointer, in full where the gateway does not have it."""
        known = self._pointer if self._pointer is not None and self._pointer.tag == tag else None
        found = self._pointer = await self._contact.bundles.pointer(known)
        if found is None:
            return Message(MessageKind.ANSWER, {"tag": None})
        return Message(MessageKind.ANSWER, {"tag": found.tag}, b"" if found.tag == tag else encode_pointer(found))


def _shown_load(load: EndpointLoad) -> dict[str, Any]:
    shown = load.as_dict()
    for place in shown["places"]:
        until = place["ejected_until"]
        place["ejected_until"] = None if until is None else iso_time(until)
    return shown


def _log(members: Mapping[str, Any]) -> None:
    name = str(members["logger"])
    found = logging.getLogger(name if name.startswith("tidegate.") else "tidegate.gateway")
    found.log(int(members["level"]), "%s", members["text"])


def _how(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-code).name}"
    return f"was ended by signal {-code}"
