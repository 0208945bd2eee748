"""Every request of S3 and DynamoDB that a command makes fails once, in every way in which AWS fails: what succeeds is
stored, what is live is whole, what fails says what to do, and the same command again succeeds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from tidegate.aws.bundle_store import S3BundleStore
from tidegate.aws.model_store import S3ModelStore
from tidegate.aws.registry import DynamoRegistry
from tidegate.bootstrap.rules_sources import GivenRules
from tidegate.control.config import ControlPorts
from tidegate.control.plane import ControlPlane
from tidegate.control.publish import PublishRequest, publish_rules
from tidegate.control.reconcile import reconcile_fleet
from tidegate.control.recover import plan_recovery, recover_pointer
from tidegate.control.status import read_status
from tidegate.errors import TidegateError
from tidegate.fleet.local_fleet import LocalFleet
from tidegate.ports import EndpointState, ModelCatalog, RegisteredEndpoint

from tests.control.plane import MODELS, Plane, clock
from tests.control.rules import bundle
from tests.support.effort import is_full
from tests.support.faulty_aws import FAULTS, TABLE, FaultyAws, aws_in_process
from tests.support.virtual_time import run

OUTLASTS = {"internal": 3, "throttled": 3, "timed_out": 3, "reset": 3}
"""As often as boto3 tries."""

HURTS = ("conflict", "unmet", "lost")
"""What writes meet, unless everything is tried."""

ADVICE = ("again", "`tidegate ", "name another", "allow", "wait")
"""Words by which a message says what to do."""

FIRST = {"main": "scorer/1", "other": "popular"}
SECOND = {"main": "pipeline", "other": "popular"}
THIRD = {"main": "scorer/3", "other": "fresh"}


EXPIRED_S = 30.0
"""Longer than any claim lasts."""


class Folder:
    """A `ModelsSource` of folders with nothing in them that anybody reads."""

    def __init__(self, root: Path, catalog: ModelCatalog) -> None:
        self.root, self.catalog = root, catalog

    def folder(self, model: str) -> Path | None:
        return self.root / model

    async def check(self, models: Iterable[str]) -> tuple[str, ...]:
        return ()


Command = Callable[["AwsPlane"], Awaitable[None]]


class AwsPlane(Plane):
    """A fleet of servers in memory over stores in S3 and DynamoDB."""

    def __init__(self, aws: FaultyAws, folder: Path) -> None:
        super().__init__()
        self.aws = aws
        self.asked: list[tuple[str, tuple[str, ...]]] = []
        self.folder = Folder(folder, self.catalog)

    def ports(self) -> ControlPorts:
        objects = self.aws.objects()
        return replace(
            super().ports(),
            bundles=S3BundleStore(objects),
            models=S3ModelStore(objects),
            registry=DynamoRegistry(self.aws.clients, TABLE, 1e9, clock),
        )

    async def start(self, shard: str) -> None:
        server = await self.launcher.launch(shard)
        await self.ports().registry.register(RegisteredEndpoint(server.endpoint, EndpointState.READY, clock()))

    async def make_live(self, process: ControlPlane, rules: Mapping[str, str]) -> str:
        request = PublishRequest(rules=GivenRules(bundle(None, **rules)), models=self.folder, by="ana")
        result = await publish_rules(process, request, self.events.append)
        if result.activated is not None:
            for warning in result.activated.warnings:
                assert "the next publish writes it" in warning or "the next reconcile does" in warning
        return result.revision


class Fleet:
    """A fleet after two publishes, as often as one likes."""

    def __init__(self, aws: FaultyAws, folder: Path) -> None:
        self._aws, self._folder = aws, folder
        self._holds: list[tuple[str, dict[str, Any]]] = []
        self.revisions = run(self._prepare())
        self._restore = aws.saved()

    async def _prepare(self) -> list[str]:
        plane = AwsPlane(self._aws, self._folder)
        for shard in ("a", "a", "b"):
            await plane.start(shard)
        revisions = [await plane.make_live(plane.process(), rules) for rules in (FIRST, SECOND)]
        self._holds = [(each.endpoint.shard, dict(each.repository.holds)) for each in plane.launcher.running()]
        return revisions

    async def plane(self) -> AwsPlane:
        """The fleet as it was."""
        self._aws.arm(None)
        plane = AwsPlane(self._aws, self._folder)
        for shard, holds in self._holds:
            server = await plane.launcher.launch(shard)
            server.repository.holds.update(holds)
        self._restore()
        return plane

    async def requests(self, command: Command) -> list[tuple[str, tuple[str, ...]]]:
        """What a command asks for where nothing fails."""
        plane = await self.plane()
        await command(plane)
        return plane.asked or list(plane.aws.asked)

    async def once(self, command: Command, fault: str, nth: int) -> None:
        """Do what a command does, with a fault; what it leaves must be whole, and the same again must succeed."""
        plane = await self.plane()
        plane.aws.arm(FAULTS[fault], nth, OUTLASTS.get(fault, 1))
        try:
            await command(plane)
        except TidegateError as error:
            assert any(advice in str(error) for advice in ADVICE), f"it does not say what to do: {error}"
            if command is not recover:
                await live(plane)
            if fault not in HURTS and not is_full():
                return
            await asyncio.sleep(EXPIRED_S)
            await command(plane)
        await live(plane)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("models")
    for name, model in MODELS.items():
        for version in model.versions:
            (folder / name / str(version)).mkdir(parents=True)
            (folder / name / str(version) / "model.py").write_text(f"# {name} {version}\n")
        (folder / name / "config.pbtxt").write_text(f'name: "{name}"\n')
    # The registry trusts addresses alone.
    with patch("tidegate.testing.fleet.HOST", "127.0.0.1"), aws_in_process() as aws:
        yield Fleet(aws, folder)


async def publish(plane: AwsPlane) -> None:
    """A publish with models to push."""
    version = plane.folder.root / "fresh" / "2"
    version.mkdir(exist_ok=True)
    (version / "model.py").write_text("# new\n")
    revision = await plane.make_live(plane.process(), THIRD)
    assert await live(plane) == revision, "it said that it was live"


async def roll_back(plane: AwsPlane) -> None:
    done = await plane.roll_back(by="ben")
    assert await live(plane) == done.revision


async def reconcile(plane: AwsPlane) -> None:
    """One server came back empty, and another has what nobody needs."""
    first, second, _ = plane.launcher.running()
    first.repository.holds.clear()
    wanted = {server.endpoint.port: set(server.repository.holds) for server in (second,)}
    result = await reconcile_fleet(plane.process(), "carl")
    if not result.undone:
        assert set(first.repository.holds) == wanted[second.endpoint.port]


async def push(plane: AwsPlane) -> None:
    store = S3ModelStore(plane.aws.objects())
    model = plane.folder.root / "another"
    (model / "1").mkdir(parents=True, exist_ok=True)
    (model / "samples").mkdir(exist_ok=True)
    for path, text in (("config.pbtxt", "name: 'another'"), ("1/model.py", "# one"), ("samples/one.json", "{}")):
        (model / path).write_text(text)
    await store.push("another", model, lambda *_: None)
    plane.asked = list(plane.aws.asked)
    plane.aws.arm(None)
    stored = S3ModelStore(plane.aws.objects())
    assert await stored.versions("another") == [1]
    assert [await stored.read("another", path) for path in ("config.pbtxt", "1/model.py")] == [
        b"name: 'another'",
        b"# one",
    ]
    assert list(await stored.samples("another")) == ["one.json"]


async def push_in_parts(plane: AwsPlane) -> None:
    store = S3ModelStore(plane.aws.objects(), part_bytes=5 * 1024 * 1024)
    model = plane.folder.root / "big"
    (model / "1").mkdir(parents=True, exist_ok=True)
    (model / "config.pbtxt").write_text("name: 'big'")
    (model / "1" / "model.bin").write_bytes(b"big" * (2 * 1024 * 1024))
    await store.push("big", model, lambda *_: None)
    plane.asked = list(plane.aws.asked)
    plane.aws.arm(None)
    assert await S3ModelStore(plane.aws.objects()).read("big", "1/model.bin") == b"big" * (2 * 1024 * 1024)


async def status(plane: AwsPlane) -> None:
    report = await read_status(plane.process())
    if report.healthy:
        assert report.live is not None
        assert report.live.revision == await live(plane)


async def recover(plane: AwsPlane) -> None:
    """The pointer was lost."""
    if "live/pointer.json" in plane.aws.keys():  # noqa: SIM118  # not a dictionary
        del plane.aws.keys()["live/pointer.json"]
    process = plane.process()
    found = await plan_recovery(process, "ann")
    if found.status == "planned":
        found = await recover_pointer(process, found)
    assert found.pointer is not None, found.reason
    assert await live(plane) == found.pointer.live.revision


async def agents(plane: AwsPlane) -> None:
    """Servers start, are filled and registered by the process that runs them, and all are gone when it ends."""
    servers = len(plane.launcher.servers)
    local = LocalFleet(plane.process(), plane.launcher)
    running = asyncio.create_task(local.run())
    await asyncio.sleep(12)
    mine = plane.launcher.servers[servers:]
    assert len(mine) == 3, "as the rules say"
    must_hold = {each.endpoint.shard: set(each.repository.holds) for each in plane.launcher.servers[:servers]}
    assert all(set(each.repository.holds) == must_hold[each.endpoint.shard] for each in mine)
    registered = await plane.ports().registry.endpoints()
    assert {each.endpoint for each in mine} <= {each.endpoint for each in registered if each.state == "ready"}
    running.cancel()
    await asyncio.wait([running])
    assert not [each for each in mine if each.running]


async def live(plane: AwsPlane) -> str:
    """The live revision; everything that it needs is stored."""
    plane.asked = plane.asked or list(plane.aws.asked)
    plane.aws.arm(None)
    ports = plane.ports()
    pointer = await ports.bundles.pointer()
    assert pointer is not None
    revision = pointer.live.revision
    await ports.bundles.bundle(revision)
    for plan in (await ports.bundles.assignment(revision)).values():
        for load in plan:
            assert await ports.models.files(load.model, None), f"the config of {load.model} is not stored"
            for version in load.versions:
                assert await ports.models.files(load.model, version), f"{load.model}/{version} is not stored"
    return revision


COMMANDS: dict[str, Command] = {
    each.__name__: each for each in (publish, roll_back, reconcile, push, push_in_parts, status, agents, recover)
}


@pytest.mark.parametrize("command", COMMANDS)
def test_each_request_of_a_command_may_fail(fleet: Fleet, command: str) -> None:
    asked = run(fleet.requests(COMMANDS[command]))
    seen = set()
    for number, (what, possible) in enumerate(asked, 1):
        if what in seen and ("lost" not in possible or command == "agents") and not is_full():
            # It fails in the same way: agents do the same again and again, and what only reads leaves nothing half done.
            continue
        seen.add(what)
        for name in chosen(number, possible):
            try:
                run(fleet.once(COMMANDS[command], name, number))
            except AssertionError as error:
                raise AssertionError(f"{command}: request {number} ({what}) meets {name}: {error}") from error


def chosen(number: int, possible: tuple[str, ...]) -> tuple[str, ...]:
    """The faults that a request meets: all, or one, another for each request."""
    if is_full():
        return possible
    hurts = [name for name in HURTS if name in possible] or list(possible)
    return (hurts[number % len(hurts)],)
