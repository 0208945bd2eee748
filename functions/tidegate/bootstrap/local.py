"""The whole stack on one machine: AWS in memory, Triton servers that load from it, the control plane and the gateway."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tidegate.aws.clients import LOCAL_REGION, AwsClients, AwsConfig
from tidegate.aws.local_server import LocalAws
from tidegate.aws.provision import provision
from tidegate.bootstrap import build_transport
from tidegate.bootstrap.control import author, build_launcher, control_config, control_ports
from tidegate.bootstrap.incidents import Incidents
from tidegate.bootstrap.known_servers import KnownServers
from tidegate.bootstrap.local_facts import seed_local_facts
from tidegate.bootstrap.local_stores import LocalStores
from tidegate.bootstrap.sources import CompiledRules, FolderModels, check_served
from tidegate.bootstrap.tasks import cancel
from tidegate.control.fleet import LocalFleet
from tidegate.control.follower import EngineFollower, FollowerConfig
from tidegate.control.plane import ControlPlane
from tidegate.control.publish import PublishRequest
from tidegate.control.sources import CheckedRules, GivenRules, RulesSource
from tidegate.control.status import FleetReport, unread
from tidegate.control.steps import StepEvent
from tidegate.errors import ImmutableError, PublishError, StackError, StoreError, TidegateError
from tidegate.ports import Transport
from tidegate.settings import Settings
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


@dataclass(slots=True)
class LocalStack:
    """A running stack; a `FleetStatus`. Made by `local_stack`.

    Attributes:
        plane: the control plane; any other process may have one of the same stores.
        fleet: the servers, and the directory of those that may be sent requests.
        follower: the rules that are live.
        forgets: whether its stores end with it.
        incidents: what went wrong since the start; an observer of the gateway.
    """

    settings: Settings
    plane: ControlPlane
    fleet: LocalFleet
    follower: EngineFollower
    _rules: Path
    _models: Path
    forgets: bool
    incidents: Incidents
    last_rejected: Mapping[str, Any] | None = None
    _reading: asyncio.Task[FleetReport] | None = None
    _reading_since: float = 0.0
    _known: Mapping[str, Any] | None = None
    _known_at: str | None = None

    async def publish(self, rules: RulesSource, why: str, *, strict: bool) -> None:
        """Publish rules, with the models of the folder that they need, and serve them.

        A `strict` publish sends no model with an error that its files show.

        Raises:
            PublishError: a step failed; what was live is live still.
        """
        models = FolderModels(self._models, self.plane.ports.models, strict=strict)
        request = PublishRequest(rules=rules, models=models, by=author(), why=why, retries=False)
        await self.plane.publisher.publish(request, _announce)
        await self.follower.poll()
        self.last_rejected = None

    async def follow_change(self) -> None:
        """Publish the rules directory as it is now; what is wrong with it is noted and changes nothing."""
        try:
            await self.publish(CompiledRules(self._rules), "the rules directory changed", strict=True)
        except TidegateError as error:
            findings = str(error).splitlines()
            if isinstance(error.__cause__, ImmutableError) and self.forgets:
                findings.append("this stack forgets what was pushed when it is restarted")
            logger.warning("the new rules are refused, the old ones stay live: %s", "\n".join(findings))
            self.last_rejected = {"at": _now(), "findings": findings}

    async def status(self) -> Mapping[str, Any]:
        """The fleet as plain JSON values: see docs/control-plane.md, "Fleet status"."""
        return {
            **await self._report(),
            **await self.follower.status(),
            **self.incidents.as_dict(self.fleet.restarts()),
            "rules": {"last_rejected": self.last_rejected},
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
            self._reading_since = time.monotonic()
        left_s = STATUS_S - (time.monotonic() - self._reading_since)
        done, _ = await asyncio.wait([self._reading], timeout=max(left_s, 0.05))
        if not done:
            return self._remembered(f"the stores or a server did not answer within {STATUS_S:g} s")
        try:
            report = self._reading.result()
        except StoreError as error:
            # What is served goes on being served, and that is worth telling.
            return self._remembered(str(error))
        self._known, self._known_at = report.as_dict(), _now()
        return {**self._known, "as_of": self._known_at}

    def _remembered(self, problem: str) -> Mapping[str, Any]:
        """The last report, marked as that."""
        known = unread(problem).as_dict() if self._known is None else self._known
        what = problem if self._known is None else f"{problem}; all else here is as of {self._known_at}"
        return {**known, "well": False, "problems": [what], "as_of": self._known_at}


@contextlib.asynccontextmanager
async def local_stack(
    settings: Settings, rules: Path, models: Path, checked: CheckedRules
) -> AsyncIterator[LocalStack]:
    """Start a stack and publish its first rules; leaving stops everything that was started, last first.

    Args:
        settings: where they name a bucket and a table these are used, else AWS is started in memory.
        rules: the rules directory.
        models: the folder that models are pushed from.
        checked: the compiled rules, which are published first.

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
        settings, aws = await _with_aws(settings, started)
        # Beside the start of the servers. A table that was given belongs to somebody, who seeds it.
        seeding = asyncio.create_task(seed_local_facts(settings, models) if settings is not given else asyncio.sleep(0))
        started.push_async_callback(cancel, seeding)
        transport = build_transport(settings)
        started.push_async_callback(transport.aclose)
        stack, running = await _started(settings, rules, models, transport, started, forgets=given is not settings)
        # Before any model answers: it would keep in mind that a member has no history.
        await seeding
        await _first_publish(stack, checked, running)
        if aws is not None:
            stores = asyncio.create_task(LocalStores(aws, settings, models, stack.plane).run())
            started.push_async_callback(cancel, stores)
        follower = asyncio.create_task(stack.follower.run())
        started.push_async_callback(cancel, follower)
        yield stack


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
    )
    config = FollowerConfig(
        poll_interval_s=settings.poll_interval_s,
        report_interval_s=min(settings.report_interval_s, SILENCE_S / 3),
        fresh_wait_s=settings.fresh_wait_ms / 1000,
    )
    follower = EngineFollower(plane.ports.bundles, GATEWAY, plane.ports.registry, config=config)
    running = asyncio.create_task(fleet.run())
    started.push_async_callback(cancel, running)
    return LocalStack(settings, plane, fleet, follower, rules, models, forgets, Incidents()), running


async def _first_publish(stack: LocalStack, checked: CheckedRules, running: asyncio.Task[None]) -> None:
    """Publish the first rules while the fleet starts."""
    rules = GivenRules(checked.bundle, checked.demand)
    publishing = asyncio.create_task(stack.publish(rules, "the stack was started", strict=False))
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


def _announce(event: StepEvent) -> None:
    if event.state in ("done", "failed"):
        logger.info("publish: %s %s: %s", event.step, event.state, event.text)
    elif event.state == "note":
        logger.info("publish: %s: %s", event.step, event.text)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
