"""Sequences: each stays with its server and its decision, and is lost with its server."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tidegate.errors import (
    DeadlineError,
    EndpointBusyError,
    EndpointRefusedError,
    EndpointResetError,
    EndpointTimeoutError,
    OverloadedError,
    SequenceLostError,
    UnavailableError,
)
from tidegate.gateway import Call
from tidegate.gateway import bindings as bindings_module
from tidegate.gateway.bindings import Sequence
from tidegate.gateway.grants import Grants
from tidegate.gateway.quotas import Lease
from tidegate.gateway.record import Record
from tidegate.gateway.request import Ask, Limits
from tidegate.gateway.service import Service
from tidegate.ports import Endpoint, HttpResponse
from tidegate.rules import compile_directory, load_bundle
from tidegate.testing import MemoryEndpointDirectory, MemoryEngineSource

from tests.gateway.world import Answer, World, answer

UNKNOWN = answer(
    400,
    "[request id: <id_unknown>] inference request for sequence 7 to model 'ranker' must specify the START flag on the first "
    "request of the sequence",
)
START, NEXT, END = Sequence("7", starts=True), Sequence("7"), Sequence("7", ends=True)


def endpoints(*hosts: str) -> tuple[Endpoint, ...]:
    return tuple(Endpoint("a", host, 8000) for host in hosts)


class Stateful(World):
    """Servers that know the sequences which began on them, as Triton does."""

    def answer(self, endpoint: Endpoint, request, timeout_s: float) -> HttpResponse:  # type: ignore[no-untyped-def]
        scripted = super().answer(endpoint, request, timeout_s)
        flags = json.loads(request.body)
        began = self.__dict__.setdefault("began", set())
        if flags["start"]:
            began.add(endpoint.host)
        return scripted if endpoint.host in began else UNKNOWN


class Gateway:
    """One process of the gateway, before servers that are shared with others."""

    def __init__(self, world: World, rules: Path) -> None:
        self.world = world
        self.engines = MemoryEngineSource(load_bundle(compile_directory(rules)))
        self.service = Service(self.engines, world.dispatcher(), Grants(lambda _: None, ""), None)
        self.record = Record()

    async def _ask(self, sequence: Sequence, country: str) -> str:
        service = self.service
        admitted = await service.admit(Ask("ranking", Lease(), record=self.record))
        limits = Limits(caller_ms=250.0)
        decided = service.decide(admitted, {"country": country}, service.now_s(), limits)
        decided, sequence = service.join(admitted, decided, sequence, limits)
        body = json.dumps({"start": sequence.starts}).encode()
        outcome = await service.dispatch(decided, Call("POST", "/infer", body=body, sequence=sequence))
        assert outcome.response.status == 200
        return f"{outcome.target.model} on {outcome.attempt.endpoint.host}"

    def ask(self, sequence: Sequence, country: str = "US") -> str:
        return asyncio.run(self._ask(sequence, country))


def write_rules(folder: Path, us: str = "ranker") -> Path:
    (folder / "objectives").mkdir(parents=True, exist_ok=True)
    rules = [
        {"id": "us", "when": {"country": "US"}, "serve": us, "timeout_ms": 100},
        {"id": "others", "serve": "popular", "timeout_ms": 20},
    ]
    objective = {
        "objective": "ranking",
        "context": {"country": {"type": "string"}},
        "fallback": ["spare"],
        "rules": rules,
    }
    (folder / "objectives" / "ranking.yaml").write_text(json.dumps(objective))
    models = {name: {"shards": ["a"]} for name in ("ranker", "popular", "spare")}
    (folder / "fleet.yaml").write_text(json.dumps({"shards": {"a": {}}, "models": models}))
    return folder


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rules(tmp_path_factory.mktemp("rules"))


@pytest.fixture
def world() -> Stateful:
    return Stateful(directory=MemoryEndpointDirectory({"a": endpoints("a1", "a2", "a3")}))


@given(st.lists(st.sampled_from(["a4", "a5", "a6", "a7"]), unique=True))
def test_a_sequence_stays_where_it_began_whoever_joins(rules: Path, joining: list[str]) -> None:
    world = Stateful(directory=MemoryEndpointDirectory({"a": endpoints("a1", "a2", "a3")}))
    gateway = Gateway(world, rules)
    home = gateway.ask(START)
    world.directory.shards["a"] = endpoints("a1", "a2", "a3", *joining)
    assert {gateway.ask(NEXT) for _ in range(3)} == {home}
    assert len(world.sent) == 4, "no other server is asked"
    another = Gateway(world, rules)
    assert {another.ask(NEXT) for _ in range(3)} == {home}, "another process finds it"


def test_a_sequence_keeps_its_decision_whatever_the_context_and_the_rules_say(
    world: Stateful, rules: Path, tmp_path: Path
) -> None:
    gateway = Gateway(world, rules)
    home = gateway.ask(START)
    assert gateway.ask(NEXT, "SE") == home
    assert (gateway.record.decision.rule, world.limits_ms[-1]) == ("us", 100.0), "as it is logged and timed, too"
    gateway.engines.live = load_bundle(compile_directory(write_rules(tmp_path, us="popular")))
    assert gateway.ask(NEXT) == home
    assert gateway.ask(END) == home
    assert gateway.ask(START).startswith("popular")


@pytest.mark.parametrize("failure", [EndpointResetError("reset"), EndpointRefusedError("refused"), UNKNOWN])
def test_a_sequence_whose_server_ends_is_lost_and_no_other_server_continues_it(
    world: Stateful, rules: Path, failure: Answer
) -> None:
    gateway = Gateway(world, rules)
    home = gateway.ask(START).split()[-1]
    world.answers[home] = failure
    world.sent.clear()
    with pytest.raises(SequenceLostError):
        gateway.ask(NEXT)
    assert world.hosts == [home]
    world.directory.shards["a"] = tuple(each for each in world.directory.shards["a"] if each.host != home)
    with pytest.raises(SequenceLostError):
        gateway.ask(NEXT)
    assert gateway.ask(START).split()[-1] != home


def test_a_sequence_whose_server_has_left_is_lost_and_nobody_is_asked(world: Stateful, rules: Path) -> None:
    gateway = Gateway(world, rules)
    home = gateway.ask(START).split()[-1]
    world.directory.shards["a"] = tuple(each for each in world.directory.shards["a"] if each.host != home)
    world.sent.clear()
    with pytest.raises(SequenceLostError):
        gateway.ask(NEXT)
    assert world.sent == []


def test_a_sequence_that_never_began_is_reported_as_lost(world: Stateful, rules: Path) -> None:
    with pytest.raises(SequenceLostError):
        Gateway(world, rules).ask(NEXT)
    assert sorted(world.hosts) == ["a1", "a2", "a3"]


@pytest.mark.parametrize(
    ("failure", "error"),
    [
        (EndpointTimeoutError("late"), DeadlineError),
        (EndpointTimeoutError("no connection", sent=False), UnavailableError),
        (EndpointBusyError("no room"), OverloadedError),
        (answer(503, "Exceeds maximum queue size"), None),
    ],
)
def test_a_server_that_does_not_answer_now_keeps_its_sequence(
    world: Stateful, rules: Path, failure: Answer, error: type[Exception] | None
) -> None:
    gateway = Gateway(world, rules)
    home = gateway.ask(START)
    world.answers[home.split()[-1]] = failure
    world.sent.clear()
    with pytest.raises(error or AssertionError):
        gateway.ask(NEXT)
    assert len(world.sent) == 1
    world.answers.clear()
    assert gateway.ask(NEXT) == home


def test_a_first_request_goes_on_to_the_next_server_where_nothing_was_sent(world: Stateful, rules: Path) -> None:
    first = Gateway(world, rules).ask(START).split()[-1]
    world.answers[first] = EndpointRefusedError("refused")
    gateway = Gateway(world, rules)
    home = gateway.ask(START)
    assert home.split()[-1] != first
    assert gateway.ask(NEXT) == home


@pytest.mark.patches
def test_the_table_is_bounded(world: Stateful, rules: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bindings_module, "MOST_BINDINGS", 2)
    gateway = Gateway(world, rules)
    homes = {name: gateway.ask(Sequence(name, starts=True)) for name in ("x", "y", "z")}
    assert {name: gateway.ask(Sequence(name)) for name in homes} == homes


def test_two_callers_with_one_id_have_two_sequences() -> None:
    from tidegate.gateway.bindings import Bindings

    from tests.gateway.world import decide

    table = Bindings()
    table.bind(decide(), "home", START, endpoints("a1")[0])
    assert table.find("ranking", "home", NEXT) is not None
    assert table.find("ranking", "shop", NEXT) is None
    assert table.find("ranking", "home", START) is None
