"""Models that hang, end their processes or servers, or fill memory, at load and at their first request, published into a
running stack: no caller of what is live notices, what is live stays whole, and each publish tells its model's own reason."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tidegate.bootstrap import build_transport
from tidegate.bootstrap.control import control_config, control_ports
from tidegate.bootstrap.model_sources import FolderModels, ModelErrors
from tidegate.bootstrap.rules_sources import GivenRules
from tidegate.control.plane import ControlPlane
from tidegate.control.publish import PublishRequest, publish_rules
from tidegate.control.steps import StepEvent
from tidegate.errors import PublishError
from tidegate.rules import compile_directory
from tidegate.settings import Settings

from tests.support.callers import Callers
from tests.support.stack import RunningStack, eventually, make_repository, running_stack, write_rules
from tests.triton.misbehaving import write_model

SHARDS = {"a": 2, "b": 1}
SETTINGS = {"load_timeout_s": 15.0, "scratch_memory_mb": 256}
VARIABLES = {f"TIDEGATE_{name.upper()}": f"{value:g}" for name, value in SETTINGS.items()}

HANG = "time.sleep(3600)"
EXIT = "os._exit(3)"
KILL = "time.sleep(0.5); os.kill(os.getppid(), 9)"
FILL = "self.kept = [np.ones(1 << 21) for _ in range(10_000)]"

CASES = {
    "raises_at_load": ({"load": 'raise RuntimeError("no licence file")'}, "no licence file"),
    "exits_at_load": ({"load": EXIT}, "Stub process"),
    "kills_at_load": ({"load": KILL}, "was ended by SIGKILL while it loaded model 'kills_at_load'"),
    "fills_at_load": ({"load": FILL}, "took more than 256 MiB of memory (TIDEGATE_SCRATCH_MEMORY_MB) while it loaded"),
    "hangs_at_load": ({"load": HANG}, "did not finish loading within 15 s"),
    "raises_when_asked": ({"check": 'raise ValueError("no luck today")'}, "no luck today"),
    "exits_when_asked": ({"check": EXIT}, "ended"),
    "kills_when_asked": ({"check": KILL}, "was ended by SIGKILL while target 'kills_when_asked' answered its first"),
    "fills_when_asked": ({"check": FILL}, "took more than 256 MiB of memory (TIDEGATE_SCRATCH_MEMORY_MB) while target"),
    "hangs_when_asked": ({"check": HANG}, "did not answer its first requests"),
}
"""How each model misbehaves, and what a publish of it tells."""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_repository(tmp_path_factory.mktemp("models"), "versioned")
    for name, (lines, _) in CASES.items():
        # Without samples, so that what is made up must find it out, where an answer could not be wrong anyway.
        write_model(folder, name, samples={"a": {"inputs": {"X": [0.25, 1.5]}}} if "raises" in name else {}, **lines)
    write_model(folder, "sound")
    return folder


@pytest.fixture(scope="module")
def stack(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    root = tmp_path_factory.mktemp("stack")
    with running_stack(rules_of(root / "rules"), models, root / "errors", variables=VARIABLES) as running:
        yield running
        assert "Traceback" not in running.errors


def rules_of(folder: Path, tried: str = "") -> Path:
    """Rules where one objective is served from both shards, another from that with one server, and a third is new."""
    on = {"versioned": ["a", "b"]} | ({tried: ["b", "a"]} if tried else {})
    more = {"fresh": tried} if tried else {}
    return write_rules(folder, SHARDS, on, main="versioned/3", **more)


def publish(stack: RunningStack, rules: Path, models: Path, *, scratch: bool = True) -> list[StepEvent]:
    """Publish as the command does, without the second that its process takes to start; the events. Without `scratch` as
    from a machine that has no Triton."""
    control = stack.get("/v1/fleet")["control"]
    names = ("bucket", "registry_table", "facts_table")
    stores = {name: control[name] for name in names} | {"aws_endpoint_url": control["endpoint_url"]}
    secret = stack.known.management_secret
    settings = Settings(**stores, aws_region=control["region"], management_secret=secret, **SETTINGS)
    events: list[StepEvent] = []

    async def work() -> None:
        transport = build_transport(settings)
        try:
            ports = control_ports(settings, transport)
            assert ports.scratch is not None
            plane = ControlPlane(ports if scratch else replace(ports, scratch=None), control_config(settings))
            source = FolderModels(models, plane.ports.models, ModelErrors.REPORT)
            request = PublishRequest(rules=GivenRules(compile_directory(rules)), models=source, by="a test")
            await publish_rules(plane, request, events.append)
        finally:
            await transport.aclose()

    asyncio.run(work())
    return events


def test_a_model_that_misbehaves_harms_nothing_that_is_live_and_its_reason_is_told(
    stack: RunningStack, models: Path, tmp_path: Path
) -> None:
    fleet = {(each["url"], each["pid"]) for shard in stack.fleet().values() for each in shard}
    live = stack.get("/v1/fleet")["revision"]
    assert len(fleet) == 3
    told: dict[str, str] = {}
    with Callers(stack, "main") as callers:
        assert eventually(lambda: len(callers.answers) > 10)
        for name in CASES:
            began = time.monotonic()
            with pytest.raises(PublishError) as failure:
                publish(stack, rules_of(tmp_path / name, name), models)
            told[name] = str(failure.value)
            print(f"{time.monotonic() - began:.1f} s: {told[name]}")
            assert failure.value.step == "try", told[name]
        assert stack.get("/v1/fleet")["revision"] == live
    assert callers.failures == []
    assert {name: reason for name, (_, reason) in CASES.items() if reason not in told[name]} == {}
    assert all(name in told[name] for name in CASES)
    assert {(each["url"], each["pid"]) for shard in stack.fleet().values() for each in shard} == fleet
    # A server that is too busy to answer for its health is left out for a moment.
    assert eventually(lambda: stack.models("a") == [{"versioned/3"}] * 2)
    assert eventually(lambda: stack.models("b") == [{"versioned/3"}])


def test_without_a_scratch_server_one_of_the_fleet_is_lost_and_is_back_before_the_next_publish_needs_it(
    stack: RunningStack, models: Path, tmp_path: Path
) -> None:
    def servers() -> set[int]:
        return {each["pid"] for shard in stack.fleet().values() for each in shard if each["state"] == "ready"}

    before, live = servers(), stack.get("/v1/fleet")["revision"]
    with Callers(stack, "main") as callers:
        for name in ("kills_at_load", "hangs_at_load", "raises_at_load"):
            began = time.monotonic()
            with pytest.raises(PublishError) as failure:
                publish(stack, rules_of(tmp_path / name, name), models, scratch=False)
            print(f"{time.monotonic() - began:.1f} s: {failure.value}")
            assert (failure.value.step, name in str(failure.value)) == ("try", True)
            assert "of shard 'a'" in str(failure.value)
        assert "no licence file" in str(failure.value)
        assert eventually(lambda: len(servers()) == 3 and len(servers() & before) >= 1)
        assert stack.get("/v1/fleet")["revision"] == live
    assert callers.failures == []
    assert eventually(lambda: stack.models("b") == [{"versioned/3"}])


def test_a_sound_model_is_tried_and_then_goes_live(stack: RunningStack, models: Path, tmp_path: Path) -> None:
    with Callers(stack, "main") as callers:
        events = publish(stack, rules_of(tmp_path, "sound"), models)
        took_s = {event.step: event.took_s for event in events if event.state == "done"}
        print("a publish with one new model:", {step: round(each, 1) for step, each in took_s.items()})
        assert took_s["try"] > 0
        assert eventually(lambda: stack.models("b") == [{"versioned/3", "sound/1"}])
        # The same models again, under other rules: nothing is left to try.
        write_rules(tmp_path, SHARDS, {"versioned": ["a", "b"], "sound": ["b", "a"]}, main="versioned/3", more="sound")
        events = publish(stack, tmp_path, models)
        assert [event.state for event in events if event.step == "try"] == ["skipped"]
    assert callers.failures == []
