"""The steps of a request, without any protocol around them."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tidegate.errors import (
    ContextError,
    LimitedError,
    NoRuleError,
    OverloadedError,
    RefusedError,
    UnavailableError,
    UnknownObjectiveError,
)
from tidegate.gateway import Call
from tidegate.gateway.fair_queue import RankedFlow
from tidegate.gateway.grants import Grants
from tidegate.gateway.load import LoadLimit
from tidegate.gateway.quotas import Lease
from tidegate.gateway.request import Ask, Decided, Limits
from tidegate.gateway.service import Service
from tidegate.ports import Served
from tidegate.rules import compile_directory, load_bundle
from tidegate.testing import MemoryEngineSource

from tests.gateway.world import World, answer
from tests.support import virtual_time

OBJECTIVE = {
    "objective": "ranking",
    "summary": "Rank.",
    "owner": "tests",
    "context": {"country": {"type": "string", "values": ["US", "DE"]}},
    "rules": [{"id": "us", "when": {"country": "US"}, "serve": "ranker"}],
}
CALLERS = {"callers": {"shop": {"objectives": ["ranking"], "overrides": ["popular"]}}}


class Gateway:
    """A service on a world with scripted endpoints; `served` is what it reported."""

    def __init__(self, folder: Path, callers: Mapping[str, Any] | None = None) -> None:
        (folder / "objectives").mkdir()
        (folder / "objectives" / "ranking.yaml").write_text(json.dumps(OBJECTIVE))
        fleet = {"shards": {"a": {}}, "models": {"ranker": {"shards": ["a"]}, "popular": {"shards": ["a"]}}}
        (folder / "fleet.yaml").write_text(json.dumps(fleet))
        if callers is not None:
            (folder / "callers.yaml").write_text(json.dumps(callers))
        self.world = World()
        self.served: list[Served] = []
        self.data = compile_directory(folder)
        self.engines = MemoryEngineSource(load_bundle(self.data))
        grants = Grants(lambda identity: identity, "send it")
        self.service = Service(self.engines, self.world.dispatcher(), grants, self.served.append)

    async def infer(self, ask: Ask, context: Mapping[str, Any]) -> Decided:
        """Take a request through every step."""
        service = self.service
        admitted = await service.admit(ask)
        decided = service.decide(admitted, context, service.now_s(), Limits(caller_ms=250.0))
        try:
            call = Call("POST", "/infer", flow=decided.flow)
            outcome = await service.dispatch(decided, call)
        except UnavailableError as error:
            service.failed(decided, error, 503)
            raise
        service.answered(decided, call, outcome)
        return decided


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Gateway]:
    return lambda *arguments: Gateway(tmp_path, *arguments)


def test_a_request_is_admitted_decided_dispatched_and_reported(make: Callable[..., Gateway]) -> None:
    gateway = make()
    decided = asyncio.run(gateway.infer(Ask("ranking", Lease(), connection="c1"), {"country": "US"}))
    assert (decided.decision.rule, decided.flow, decided.is_pinned) == ("us", "c1", False)
    assert [path for _, path in gateway.world.sent] == ["/v2/models/ranker/infer"]
    assert gateway.world.limits_ms[0] <= 250.0, "the caller's own limit holds"
    (served,) = gateway.served
    assert (served.status, served.shard, served.failed_attempts) == (200, "a", 0)


def test_what_no_target_answers_is_reported_with_its_attempts(make: Callable[..., Gateway]) -> None:
    gateway = make()
    gateway.world.answers = {"a1": answer(503), "a2": answer(503)}
    with pytest.raises(UnavailableError):
        asyncio.run(gateway.infer(Ask("ranking", Lease()), {"country": "US"}))
    (served,) = gateway.served
    assert (served.status, served.target, served.failed_attempts) == (503, None, 2)


@pytest.mark.parametrize(
    ("ask", "context", "error"),
    [
        (Ask("rankin", Lease()), {}, UnknownObjectiveError),
        (Ask("ranking", Lease(), pins=(b"ranker",)), {"country": "US"}, RefusedError),
        (Ask("ranking", Lease(), pins=(b"a", b"b")), {"country": "US"}, RefusedError),
        (Ask("ranking", Lease()), {"country": 1}, ContextError),
        (Ask("ranking", Lease()), {"country": "DE"}, NoRuleError),
    ],
)
def test_what_is_refused_reaches_no_server_and_is_not_reported(
    make: Callable[..., Gateway], ask: Ask, context: Mapping[str, Any], error: type[Exception]
) -> None:
    gateway = make()
    with pytest.raises(error):
        asyncio.run(gateway.infer(ask, context))
    assert (gateway.world.sent, gateway.served) == ([], [])


def test_callers_are_held_to_their_grants_and_take_turns_by_name(make: Callable[..., Gateway]) -> None:
    gateway = make(CALLERS)
    decided = asyncio.run(gateway.infer(Ask("ranking", Lease(), "shop", "c1", (b"popular",)), {"country": "US"}))
    assert (decided.flow, decided.is_pinned, decided.decision.target.model) == ("shop", True, "popular")
    for refused in (
        Ask("ranking", Lease(), "nobody"),
        Ask("ranking", Lease()),
        Ask("ranking", Lease(), "shop", pins=(b"ranker/7",)),
    ):
        with pytest.raises(RefusedError):
            asyncio.run(gateway.infer(refused, {"country": "US"}))


def test_rules_that_go_live_while_a_body_arrives_admit_again(make: Callable[..., Gateway]) -> None:
    gateway = make()
    admitted = asyncio.run(gateway.service.admit(Ask("ranking", Lease())))
    assert gateway.service.admit_again(admitted) is admitted
    swapped = load_bundle(gateway.data)
    gateway.engines.live = swapped
    assert gateway.service.admit_again(admitted).engine is swapped


def test_a_callers_priority_goes_with_its_requests(make: Callable[..., Gateway]) -> None:
    names = ("high", "normal", "low")
    gateway = make({"callers": {name: {"objectives": "*", "priority": name} for name in names}})
    flows = [asyncio.run(gateway.service.admit(Ask("ranking", Lease(), name))).flow for name in names]
    assert flows == [RankedFlow("high", 0), "normal", RankedFlow("low", 2)]


def test_whatever_becomes_of_a_request_it_gives_back_what_it_held(tmp_path: Path) -> None:
    """Requests wait, are refused, fail, or are cancelled at any moment."""
    callers = {"shop": {"objectives": ["ranking"], "concurrency": 6}, "low": {"objectives": "*", "priority": "low"}}
    gateway = Gateway(tmp_path, {"callers": callers})
    load, chance = LoadLimit(4), random.Random(5)
    service = Service(gateway.engines, gateway.world.dispatcher(), Grants(lambda name: name, ""), load=load)
    ends: Counter[str] = Counter()

    async def ask(caller: str) -> None:
        lease = Lease()
        try:
            await service.admit(Ask("ranking", lease, caller))
            assert load.in_flight <= 4
            await asyncio.sleep(chance.random() * 0.2)
            if chance.random() < 0.2:
                raise ValueError
            ends["answered"] += 1
        except (LimitedError, OverloadedError, ValueError, asyncio.CancelledError) as error:
            ends[type(error).__name__] += 1
        finally:
            lease.release()

    async def main() -> None:
        tasks = []
        for _ in range(3000):
            tasks.append(asyncio.create_task(ask(chance.choice(["shop", "low"]))))
            await asyncio.sleep(chance.choice([0.0, 0.0, 0.001, 0.05]))
            chance.choice(tasks[-20:]).cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (load.in_flight, load.waiting) == (0, 0)
        held = [Lease() for _ in range(4)]
        for lease in held:
            await service.admit(Ask("ranking", lease, "shop"))
        for lease in held:
            lease.release()

    virtual_time.run(main())
    assert (
        min(ends[name] for name in ("answered", "LimitedError", "OverloadedError", "ValueError", "CancelledError")) > 10
    )
