"""The control plane as the gateway's process sees it: what the gateway asks and reports over the channel, and what is pushed to it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tidegate.aws.formats import decode_pointer
from tidegate.bootstrap.console_link import LinkedConsole
from tidegate.bootstrap.gateway_link import GatewayLink, Message, MessageKind
from tidegate.bootstrap.shadow_link import LinkedShadows
from tidegate.errors import StoreError, UnavailableError
from tidegate.gateway.follower import EngineFollower, FollowerConfig
from tidegate.gateway.shadow_lanes import ShadowLimits
from tidegate.gateway.traffic import TrafficCounter
from tidegate.ports import Endpoint, EndpointLoad, GatewayReport, Pointer, Suspect
from tidegate.settings import Settings
from tidegate.shadows.sampled import PairCounts
from tidegate.tasks import wait_at_most

if TYPE_CHECKING:
    from tidegate.bootstrap.shadow_sender import QueuedShadows

BEAT_S = 1.0
"""How often the control plane hears from the gateway."""

STORE_WAIT_S = 10.0
STATUS_WAIT_S = 2.5
"""The longest that a report of the fleet waits for the control plane, which itself waits 2 s for the stores and servers."""

SHADOWS_WAIT_S = 0.3
"""The longest that an end waits until the control plane has the last tallies of shadows."""

MOST_LOG_CHARACTERS = 20_000


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


class GatewayChannel:
    """The gateway's side of the channel, and a `FleetStatus`."""

    def __init__(self) -> None:
        self.directory = PushedDirectory()
        self.traffic = TrafficCounter()
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
        self.gateway_pairs = PairCounts()
        self._process_shadows: Counter[str] = Counter()
        self._lost_pairs = PairCounts()
        self._counts_are_queued = False

    def shadows(self, settings: Settings) -> LinkedShadows | QueuedShadows:
        if settings.shadow_carrier == "queue":
            return self._queued_shadows(settings)
        limits = ShadowLimits(
            settings.shadow_timeout_ms / 1000,
            settings.shadow_in_flight,
            settings.shadow_waiting,
            settings.shadow_buffered_bytes,
        )
        return LinkedShadows(
            limits,
            settings.connect_timeout_ms,
            settings.max_response_bytes,
            self._shadows_done,
            self._lost_pairs,
            settings.tracing,
        )

    def _queued_shadows(self, settings: Settings) -> QueuedShadows:
        # Imported here, since most gateways have no queue.
        from tidegate.bootstrap.shadow_function import LOCAL_CREDENTIALS
        from tidegate.bootstrap.shadow_sender import QueuedShadows
        from tidegate.bootstrap.wires import shadow_queue_of

        queue = shadow_queue_of(settings, LOCAL_CREDENTIALS)
        assert queue is not None
        self._counts_are_queued = True
        most_bytes = settings.shadow_buffered_bytes
        return QueuedShadows(queue, most_bytes, lambda: self.gateway_pairs.take(), self._shadows_queued)

    def _shadows_queued(self, counts: Counter[str]) -> None:
        self._process_shadows += counts

    def _shadows_done(self, counts: Counter[str], tallies: bytes) -> None:
        self._process_shadows += counts
        if tallies and self._link.is_behind:
            self._process_shadows["tallies lost"] += 1
        elif tallies:
            self._link.send(Message(MessageKind.SHADOWS, payload=tallies))

    async def end_shadows(self, shadows: LinkedShadows | QueuedShadows) -> None:
        await shadows.aclose()
        self._send_pairs()
        if self.gateway_shadows or self._process_shadows:
            # The last tallies are handled before this is answered.
            with contextlib.suppress(StoreError):
                await self._link.ask(Message(MessageKind.SHADOWS), SHADOWS_WAIT_S)

    def _send_pairs(self) -> None:
        """Tell what was counted of each pair, unless it goes with the copies to the queue."""
        if self._counts_are_queued:
            return
        if records := self.gateway_pairs.take() + self._lost_pairs.take():
            self._link.send(Message(MessageKind.SAMPLED, {"pairs": records}))

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

    def console(self, settings: Settings) -> LinkedConsole | None:
        """Return what answers the console, unless it is off. Only after `follow`."""
        return LinkedConsole(self._link) if settings.console else None

    def suspect(self, suspect: Suspect) -> None:
        """Report a model that callers cannot use; the dispatcher does so at most once a second for each."""
        if self._link.is_behind:
            return
        place = suspect.endpoint
        members = {"shard": place.shard, "host": place.host, "port": place.port, "model": suspect.model}
        self._link.send(Message(MessageKind.SUSPECT, {**members, "what": suspect.kind.value}))

    async def beat(self) -> None:
        """Report how late this event loop was, what is served, what was counted, and the state of the endpoints."""
        loop = asyncio.get_running_loop()
        taken_s = loop.time()
        while True:
            due = loop.time() + BEAT_S
            self._news.clear()
            await wait_at_most(self._news, BEAT_S)
            lag_ms = max(0.0, loop.time() - due) * 1000
            if self._link.is_behind:
                continue
            follower = await self._follower.status()
            shadows = self.gateway_shadows + self._process_shadows
            now_s = loop.time()
            members = {
                "lag_ms": lag_ms,
                "follower": follower,
                "traffic": self.traffic.take(),
                "routes": self.traffic.take_routes(),
                "covered_s": now_s - taken_s,
                "shadows": shadows,
                "loads": [each.as_dict() for each in self.loads()],
            }
            taken_s = now_s
            self._link.send(Message(MessageKind.BEAT, members))
            self._send_pairs()

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
