"""The whole stack on one machine: AWS in memory, Triton servers that load from it, the control plane, and the gateway in a
process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tidegate import stack_file
from tidegate.aws.clients import LOCAL_REGION, AwsClients, AwsConfig
from tidegate.aws.local_server import LocalAws
from tidegate.aws.provision import provision
from tidegate.bootstrap import build_transport
from tidegate.bootstrap.control import author, build_launcher, control_config, control_ports
from tidegate.bootstrap.gateway_supervisor import GatewayContact, GatewaySupervisor
from tidegate.bootstrap.incidents import Incidents
from tidegate.bootstrap.known_servers import KnownServers
from tidegate.bootstrap.local_facts import seed_local_facts
from tidegate.bootstrap.local_stores import LocalStores
from tidegate.bootstrap.operator_socket import operator_socket
from tidegate.bootstrap.sources import FolderModels, check_served, followed_rules
from tidegate.bootstrap.tasks import cancel
from tidegate.control.fleet import LocalFleet
from tidegate.control.following import FollowMode, describe_pause, pause_fields, pause_of
from tidegate.control.plane import ControlPlane
from tidegate.control.publish import PublishRequest
from tidegate.control.sources import CheckedRules, GivenRules, RulesSource
from tidegate.control.status import FleetReport, unread
from tidegate.control.steps import StepEvent
from tidegate.errors import BundleError, ImmutableError, PublishError, StackError, StoreError, TidegateError
from tidegate.ports import LiveEntry, Pointer, Transport
from tidegate.ports.bundle_store import as_text
from tidegate.rules import Engine
from tidegate.settings import Settings
from tidegate.stack_file import StackFile
from tidegate.triton.installation import find_installation

logger = logging.getLogger(__name__)

BUCKET = "tidegate"
REGISTRY_TABLE = "tidegate-registry"
FACTS_TABLE = "tidegate-facts"
GATEWAY = "local"

BEAT_S = 2.0
SILENCE_S = 15.0
SETTLED_S = 5.0
STATUS_S = 2.0
"""The longest that a report of the fleet waits for the stores and the servers."""
LOOK_S = 0.5


@dataclass(slots=True)
class LocalStack:
    """A running stack. Made by `local_stack`.

    Attributes:
        plane: the control plane; any other process may have one of the same stores.
        fleet: the servers, and the directory of those that may be sent requests.
        forgets: whether its stores end with it.
        incidents: what went wrong since the start.
        gateway: the gateway's process; set before anything is published.
        mode: what the rules directory must pass before a change of it goes live.
        last_rejected: when a change of it was refused last, and the findings; None since one was published.
        unpublished_at: when it changed last while following was paused.
        follow_ended: why changes of it are not noticed any more; empty while they are.
    """

    settings: Settings
    plane: ControlPlane
    fleet: LocalFleet
    _rules: Path
    _models: Path
    forgets: bool
    incidents: Incidents
    mode: FollowMode = FollowMode.CHECKED
    last_rejected: Mapping[str, Any] | None = None
    _reading: asyncio.Task[FleetReport] | None = None
    _reading_since: float = 0.0
    _known: Mapping[str, Any] | None = None
    _known_at: str | None = None
    unpublished_at: str | None = None
    _unpublished_since: int = 0
    follow_ended: str = ""
    _rejected_after: int = 0
    _place: str = field(init=False)
    gateway: GatewaySupervisor = field(init=False)
    _supervising: asyncio.Task[None] = field(init=False)
    _serving: asyncio.Task[None] = field(init=False)

    def __post_init__(self) -> None:
        # Once: a machine whose name changes meanwhile follows the same directory.
        self._place = as_text(f"{socket.gethostname()}:{self._rules.resolve()}")

    @property
    def directory(self) -> str:
        """The rules directory as a flip that follows it says; empty where it is not followed."""
        return "" if self.mode is FollowMode.OFF else self._place

    async def publish(self, rules: RulesSource, why: str, *, strict: bool) -> None:
        """Publish rules, with the models of the folder that they need, and serve them.

        A `strict` publish sends no model with an error that its files show.

        Raises:
            PublishError: a step failed; what was live is live still.
        """
        models = FolderModels(self._models, self.plane.ports.models, strict=strict)
        request = PublishRequest(
            rules=rules, models=models, by=author(), why=why, follows=self.directory, retries=False
        )
        polls: list[asyncio.Task[None]] = []

        def announce(event: StepEvent) -> None:
            _announce(event)
            if event.step == "flip" and event.state == "done":
                # At once, and not when it would ask the next time.
                polls.append(asyncio.create_task(self.gateway.poll()))

        await self.plane.publisher.publish(request, announce)
        await asyncio.gather(*polls)
        await self.gateway.poll()
        self.last_rejected = self.unpublished_at = None

    async def follow_change(self) -> None:
        """Publish the rules directory as it is now, unless somebody else made something live: that pauses following. What is
        wrong with the directory is noted and changes nothing; so is a file that vanishes while it is read, and the next change
        is tried again."""
        try:
            await self.publish(followed_rules(self._rules, self.mode), "the rules directory changed", strict=True)
        except (TidegateError, OSError) as error:
            pause = await self.pause()
            if pause is not None:
                self.unpublished_at, self._unpublished_since = _now(), pause.sequence
                logger.warning(
                    "the rules changed and are not published: following is paused %s; `tidegate follow resume` publishes "
                    "the directory as it is then",
                    describe_pause(pause),
                )
                return
            findings = str(error).splitlines()
            if isinstance(error.__cause__, ImmutableError) and self.forgets:
                findings.append("this stack forgets what was pushed when it is restarted")
            logger.warning("the new rules are refused, the old ones stay live: %s", "\n".join(findings))
            self.last_rejected = {"at": _now(), "findings": findings}
            self._rejected_after = _sequence(self.plane.reader.known)

    async def pause(self) -> LiveEntry | None:
        """The flip that paused following; None where it is not paused, or the store does not say."""
        try:
            return pause_of(await self.plane.reader.pointer(), self.directory)
        except StoreError:
            return None

    def serve(self) -> None:
        """Start the gateway, and keep it running."""
        self._serving = asyncio.create_task(self.gateway.run())

    async def stop_serving(self) -> None:
        """End the gateway, the requests under way first."""
        await cancel(self._serving)

    def supervise(self) -> asyncio.Task[None]:
        """Start the servers, and keep them running; whoever cancels the task ends them."""
        self._supervising = asyncio.create_task(self.fleet.run())
        return self._supervising

    async def wait(self) -> None:
        """Wait for what never should be: that nobody keeps the gateway, or the servers, running any more. Raises
        `StackError`."""
        await asyncio.wait([self._serving, self._supervising], return_when=asyncio.FIRST_COMPLETED)
        what, ended = ("gateway is", self._serving) if self._serving.done() else ("servers are", self._supervising)
        raise StackError(f"the {what} not kept running any more") from ended.exception()

    async def live_engine(self) -> Engine | None:
        """The rules that are live; None where the stores do not say."""
        with contextlib.suppress(StoreError, BundleError):
            pointer = await self.plane.reader.pointer()
            return None if pointer is None else await self.plane.reader.engine(pointer.live.revision)
        return None

    async def status(self, follower: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """The fleet as plain JSON values: see docs/control-plane.md, "Fleet status".

        `follower` is what the gateway says of the rules that it serves; None: what it said last.
        """
        report = await self._report()
        wrong = tuple(self.gateway.problems())
        return {
            **report,
            "well": report["well"] and not wrong,
            "problems": [*report["problems"], *wrong],
            **(self.gateway.follower if follower is None else follower),
            **self.incidents.as_dict(self.fleet.restarts(), self.fleet.reloads(), self.gateway.restarts),
            "gateway": self.gateway.as_dict(),
            "follow": self._follow_status(),
            "rules": {"last_rejected": self._last_rejected()},
            "control": {
                "endpoint_url": self.settings.aws_endpoint_url,
                "bucket": self.settings.bucket,
                "registry_table": self.settings.registry_table,
                "region": self.settings.aws_region,
                "facts_table": self.settings.facts_table,
            },
        }

    async def _report(self) -> Mapping[str, Any]:
        """What the stores and servers say, in bounded time: where they do not answer in time, what they said last."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self.plane.status.read(self.fleet.pids()))
            self._reading.add_done_callback(self._keep)
            self._reading_since = time.monotonic()
        left_s = STATUS_S - (time.monotonic() - self._reading_since)
        done, _ = await asyncio.wait([self._reading], timeout=max(left_s, 0.05))
        if not done:
            return self._remembered(f"the stores or a server did not answer within {STATUS_S:g} s")
        try:
            self._reading.result()
        except StoreError as error:
            # What is served goes on being served, and that is worth telling.
            return self._remembered(str(error))
        assert self._known is not None
        return {**self._known, "as_of": self._known_at}

    def _keep(self, reading: asyncio.Task[FleetReport]) -> None:
        """Remember what a reading says, also one that nobody waits for any more."""
        if not reading.cancelled() and reading.exception() is None:
            self._known, self._known_at = reading.result().as_dict(), _now()

    def _remembered(self, problem: str) -> Mapping[str, Any]:
        """The last report, marked as that."""
        known = unread(problem).as_dict() if self._known is None else self._known
        what = problem if self._known is None else f"{problem}; all else here is as of {self._known_at}"
        return {**known, "well": False, "problems": [what], "as_of": self._known_at}

    def _follow_status(self) -> dict[str, Any]:
        """How the directory is followed, by the pointer as it was read last."""
        known = self.plane.reader.known
        pause = None if self.mode is FollowMode.OFF else pause_of(known, self.directory)
        state = "off" if self.mode is FollowMode.OFF else "following" if pause is None else "paused"
        return {
            "mode": self.mode.value,
            "state": "ended" if self.follow_ended else state,
            "ended": self.follow_ended or None,
            "directory": self.directory,
            "rules": str(self._rules.resolve()),
            "models": str(self._models.resolve()),
            "paused": None if pause is None else pause_fields(pause),
            # Of this pause: another process may have published the directory after an earlier one.
            "unpublished_at": self.unpublished_at if pause and pause.sequence == self._unpublished_since else None,
        }

    def _last_rejected(self) -> Mapping[str, Any] | None:
        known = self.plane.reader.known
        if pause_of(known, self.directory) is None and _sequence(known) > self._rejected_after:
            # Another process published the directory since.
            self.last_rejected = None
        return self.last_rejected


def _sequence(pointer: Pointer | None) -> int:
    return 0 if pointer is None else pointer.live.sequence


@contextlib.asynccontextmanager
async def local_stack(
    settings: Settings,
    rules: Path,
    models: Path,
    checked: CheckedRules,
    listener: socket.socket,
    mode: FollowMode = FollowMode.CHECKED,
) -> AsyncIterator[LocalStack]:
    """Start a stack and publish its first rules; requests are answered from then on. Leaving stops everything that was
    started, last first.

    Args:
        settings: where they name a bucket and a table these are used, else AWS is started in memory.
        rules: the rules directory.
        models: the folder that models are pushed from.
        checked: the compiled rules, which are published first, unless somebody else made others live in stores that the
            settings name.
        listener: the bound socket that the gateway serves.
        mode: what the rules directory must pass before a change of it goes live.

    Raises:
        StackError: it could not start; whatever had started is gone again.
        ModelConfigError: the models that the rules serve have errors; nothing had started.
    """
    # First of all, as nothing can start without it, and what comes next takes seconds.
    await asyncio.to_thread(find_installation, settings.triton_home, settings.cache_dir)
    if settings.bucket is None:
        # Every model will be pushed. The check takes a second; servers and a publish, which would find the same, take ten.
        logger.info("checking the models that the rules serve in %s", models)
        await check_served(models, checked.bundle)
    async with contextlib.AsyncExitStack() as started:
        given = settings
        settings, aws = await _with_aws(_with_secrets(settings), started)
        # Beside the start of the servers. A table that was given belongs to somebody, who seeds it.
        seeding = asyncio.create_task(seed_local_facts(settings, models) if settings is not given else asyncio.sleep(0))
        started.push_async_callback(cancel, seeding)
        transport = build_transport(settings)
        started.push_async_callback(transport.aclose)
        stack, running = await _started(settings, rules, models, transport, started, forgets=given is not settings)
        stack.mode = mode
        _start_gateway(stack, listener, started)
        # Before any model answers: it would keep in mind that a member has no history.
        await seeding
        pointer = await stack.plane.reader.pointer()
        if pointer is None or (mode is not FollowMode.OFF and pause_of(pointer, stack.directory) is None):
            await _first_publish(stack, checked, running)
        else:
            await _serve_live(stack, pointer.live, running)
        if aws is not None:
            stores = asyncio.create_task(LocalStores(aws, settings, models, stack.plane).run())
            started.push_async_callback(cancel, stores)
        await stack.gateway.ready()
        await _make_known(stack, listener, started)
        yield stack


def _with_secrets(settings: Settings) -> Settings:
    """The settings with the secrets of a stack: those that they name, or new ones."""
    return replace(
        settings,
        operator_token=settings.operator_token or secrets.token_urlsafe(32),
        management_secret=settings.management_secret or secrets.token_urlsafe(32),
    )


async def _make_known(stack: LocalStack, listener: socket.socket, started: contextlib.AsyncExitStack) -> None:
    """Let commands of this user find the stack, with what opens it to operators."""
    host, port = listener.getsockname()
    assert stack.settings.operator_token is not None
    assert stack.settings.management_secret is not None
    try:
        stack_file.prepare()
        path = stack_file.socket_of(port)
        if path is not None:
            await started.enter_async_context(operator_socket(path, stack.status))
        known = StackFile(
            f"http://{host}:{port}",
            os.getpid(),
            stack.settings.operator_token,
            stack.settings.management_secret,
            path,
        )
        started.enter_context(stack_file.written(known))
    except (OSError, StackError) as error:
        logger.warning(
            "commands cannot find this stack (%s): give it and them TIDEGATE_OPERATOR_TOKEN and TIDEGATE_MANAGEMENT_SECRET",
            error,
        )


async def _with_aws(settings: Settings, started: contextlib.AsyncExitStack) -> tuple[Settings, LocalAws | None]:
    """The settings with stores in them: those that they name, or new ones in memory, with the process that has them."""
    aws = None
    if settings.bucket is None or settings.registry_table is None:
        logger.info("starting S3 and DynamoDB in memory")
        aws = await LocalAws.start()
        started.push_async_callback(aws.stop)
        settings = replace(
            settings,
            aws_endpoint_url=aws.url,
            aws_region=settings.aws_region or LOCAL_REGION,
            bucket=BUCKET,
            registry_table=REGISTRY_TABLE,
            facts_table=FACTS_TABLE,
            silence_timeout_s=SILENCE_S,
        )
        assert settings.bucket is not None
        assert settings.registry_table is not None
        await provision(AwsClients(AwsConfig.from_settings(settings)), settings.bucket, settings.registry_table)
    return settings, aws


async def _started(
    settings: Settings,
    rules: Path,
    models: Path,
    transport: Transport,
    started: contextlib.AsyncExitStack,
    *,
    forgets: bool,
) -> tuple[LocalStack, asyncio.Task[None]]:
    launcher = KnownServers(build_launcher(settings, models, transport))
    ports = control_ports(settings, transport)
    plane = ControlPlane(
        replace(ports, repository_of=launcher.repository_of(ports.repository_of)), control_config(settings)
    )
    fleet = LocalFleet(
        plane,
        launcher,
        beat_s=BEAT_S,
        reconcile_s=settings.reconcile_interval_s,
        self_test_s=settings.self_test_interval_s,
    )
    stack = LocalStack(settings, plane, fleet, rules, models, forgets, Incidents())
    running = stack.supervise()
    started.push_async_callback(cancel, running)
    return stack, running


def _start_gateway(stack: LocalStack, listener: socket.socket, started: contextlib.AsyncExitStack) -> None:
    """Start the gateway's process, which answers once there are rules and endpoints."""
    settings = stack.settings
    contact = GatewayContact(
        settings=replace(settings, report_interval_s=min(settings.report_interval_s, SILENCE_S / 3)),
        gateway_id=GATEWAY,
        bundles=stack.plane.ports.bundles,
        registry=stack.plane.ports.registry,
        report=stack.status,
        suspect=stack.fleet.suspect,
    )
    stack.gateway = GatewaySupervisor(listener, contact, stack.incidents)
    stack.fleet.directory.tell(stack.gateway.show)
    stack.serve()
    started.push_async_callback(stack.stop_serving)


async def _first_publish(stack: LocalStack, checked: CheckedRules, running: asyncio.Task[None]) -> None:
    """Publish the first rules while the fleet starts."""
    rules = GivenRules(checked.bundle, checked.demand)
    strict = stack.mode is not FollowMode.UNCHECKED
    publishing = asyncio.create_task(stack.publish(rules, "the stack was started", strict=strict))
    try:
        await asyncio.wait([publishing, running], return_when=asyncio.FIRST_COMPLETED)
        if not publishing.done():
            running.result()
            raise StackError("the fleet ended by itself")
        publishing.result()
    except PublishError as error:
        raise StackError(f"not every target can be served\n{error}") from error
    finally:
        await cancel(publishing)
    await stack.fleet.directory.refresh()


async def _serve_live(stack: LocalStack, live: LiveEntry, running: asyncio.Task[None]) -> None:
    """Serve what is live already, once every shard has its servers; without them, serve what can be in the end."""
    what = "following is off" if stack.mode is FollowMode.OFF else f"following is paused {describe_pause(live)}"
    logger.warning("revision %s is live and stays so: %s", live.revision[:12], what)
    deadline = asyncio.get_running_loop().time() + stack.settings.load_timeout_s
    while any(shard.short for shard in (await stack.plane.status.read()).shards):
        if running.done():
            running.result()
            raise StackError("the fleet ended by itself")
        if asyncio.get_running_loop().time() > deadline:
            logger.warning("not every server is ready after %g s; see `tidegate status`", stack.settings.load_timeout_s)
            break
        await asyncio.sleep(LOOK_S)
    await stack.gateway.poll()
    await stack.fleet.directory.refresh()


def _announce(event: StepEvent) -> None:
    if event.state == "failed":
        # The reason is the error's, which is reported once.
        logger.info("publish: %s failed", event.step)
    elif event.state == "done":
        logger.info("publish: %s done%s", event.step, f": {event.text}" if event.text else "")
    elif event.state == "note":
        logger.info("publish: %s: %s", event.step, event.text)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
