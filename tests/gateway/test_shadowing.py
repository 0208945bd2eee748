"""Copies for shadows: which requests are copied, what the copies hold, and what is left out or dropped instead."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tidegate.errors import UnavailableError
from tidegate.gateway import Call
from tidegate.gateway.bindings import Sequence
from tidegate.gateway.grants import Grants
from tidegate.gateway.quotas import Lease
from tidegate.gateway.request import Ask, Limits
from tidegate.gateway.service import Service
from tidegate.gateway.shadowing import Shadowing
from tidegate.oip.infer_message import parameter_fields
from tidegate.ports import HttpResponse
from tidegate.rules import compile_directory, load_bundle
from tidegate.shadows.copy import ShadowCopy, read_copy
from tidegate.shadows.counts import Drop
from tidegate.shadows.exchange import Pair
from tidegate.testing import MemoryEngineSource
from tritonclient.grpc import service_pb2

from tests.gateway.world import World, answer

OBJECTIVE = {
    "objective": "ranking",
    "summary": "Rank.",
    "owner": "tests",
    "sticky_key": "member",
    "context": {"member": {"type": "string"}, "country": {"type": "string"}},
    "rules": [
        {"id": "us", "when": {"country": "US"}, "serve": "ranker", "shadow": {"fresh/2": 100, "popular": 100}},
        {"id": "half", "when": {"country": "SE"}, "serve": "ranker", "shadow": {"popular": 50}},
        {"id": "lost", "when": {"country": "NO"}, "serve": "ranker", "shadow": {"lonely": 100}},
        {"id": "rest", "serve": "ranker", "fallback": ["popular"]},
    ],
}
MODELS = {"ranker": ["a"], "fresh": ["b"], "popular": ["c"], "lonely": ["nowhere"]}
SERVICE = "/inference.GRPCInferenceService/"
HEADERS = ((b"content-type", b"application/json"), (b"Tidegate-Param-tidegate_traffic", b"real"))
RESPONSE = HttpResponse(200, [(b"content-type", b"x"), (b"inference-header-content-length", b"3")], b"an answer")


class Gateway:
    """A service on a world with scripted endpoints; `copies` is what a sink took, which `refuses` makes refuse."""

    takes_rpcs = True

    def __init__(self, folder: Path) -> None:
        (folder / "objectives").mkdir()
        (folder / "objectives" / "ranking.yaml").write_text(json.dumps(OBJECTIVE))
        shards: Mapping[str, Any] = {"a": {}, "b": {}, "c": {}, "nowhere": {}}
        fleet = {"shards": shards, "models": {name: {"shards": on} for name, on in MODELS.items()}}
        (folder / "fleet.yaml").write_text(json.dumps(fleet))
        (folder / "callers.yaml").write_text(
            json.dumps({"callers": {"shop": {"objectives": ["ranking"], "overrides": ["popular"]}}})
        )
        self.world = World(answers={"a1": RESPONSE, "a2": RESPONSE})
        self.copies: list[ShadowCopy] = []
        self.refuses: Drop | None = None
        self.is_full = False
        self.dispatcher = self.world.dispatcher(most_in_flight=1, initial_in_flight=1, queue_ms=60_000)
        self.rpc_ports: Mapping[str, int] = {"b1": 8001, "c1": 8002}
        self.shadowing = Shadowing(
            self.dispatcher, self, lambda: 1_796_000_000.0, lambda each: self.rpc_ports.get(each.host)
        )
        engines = MemoryEngineSource(load_bundle(compile_directory(folder)))
        self.service = Service(engines, self.dispatcher, Grants(lambda _: "shop", "send it"), shadowing=self.shadowing)

    def refusal(self, pair: Pair) -> Drop | None:
        return self.refuses

    def offer(self, copy: ShadowCopy) -> Drop | None:
        if self.is_full:
            return Drop.MEMORY
        self.copies.append(copy)
        return None

    async def infer(self, call: Call, country: str, member: str = "m1", pins: tuple[bytes, ...] = ()) -> None:
        service = self.service
        admitted = await service.admit(Ask("ranking", Lease(), pins=pins))
        context = {"country": country, "member": member}
        decided = service.decide(admitted, context, service.now_s(), Limits())
        try:
            outcome = await service.dispatch(decided, call)
        except UnavailableError as error:
            service.failed(decided, error, 503)
        else:
            service.answered(decided, call, outcome)

    def counts(self) -> dict[str, int]:
        return dict(self.shadowing.counts)

    def pairs(self) -> dict[tuple[str, str, str], dict[str, int]]:
        """What was counted since the last time of each rule, primary and shadow."""
        return {(pair[1], pair[2], pair[4]): counts for pair, _, _, _, counts in self.shadowing.pairs.take()}


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    return Gateway(tmp_path)


def test_a_copy_is_the_request_marked_and_goes_to_each_shadow(gateway: Gateway) -> None:
    asyncio.run(gateway.infer(Call("POST", "/infer", HEADERS, b"tensors", version=7), "US"))
    first, second = gateway.copies
    assert (first.path, second.path) == ("/v2/models/fresh/versions/2/infer", "/v2/models/popular/infer")
    assert (first.shard, first.address) == ("b", ("b1", 8000))
    assert dict(first.headers) == {**dict(HEADERS), b"Tidegate-Param-tidegate_traffic": b"shadow"}
    assert (first.body, first.primary.status, first.primary.body) == (b"tensors", 200, b"an answer")
    assert first.pair == ("ranking", "us", "ranker", "ranker", "fresh/2", "fresh/2")
    assert len(gateway.world.sent) == 1, "the gateway itself sends no copy"
    assert gateway.counts() == {"sampled": 2}
    assert gateway.pairs() == {("us", "ranker", each): {"sampled": 1} for each in ("fresh/2", "popular")}
    assert gateway.pairs() == {}


def test_a_copy_crosses_to_another_process_or_a_queue_as_it_is(gateway: Gateway) -> None:
    asyncio.run(gateway.infer(Call("POST", "/infer", HEADERS, bytes(range(256))), "US"))
    for copy in gateway.copies:
        read = read_copy(b"".join(copy.parts()))
        # The headers that a comparison reads are all that crosses of the primary's.
        kept = copy._replace(primary=copy.primary._replace(headers=[RESPONSE.headers[1]]))
        assert (read, read.headers) == (kept._replace(headers=read.headers), list(kept.headers))


def test_members_are_copied_always_or_never(gateway: Gateway) -> None:
    copied = {}
    for number in range(40):
        asyncio.run(gateway.infer(Call("POST", "/infer"), "SE", f"m{number}"))
        asyncio.run(gateway.infer(Call("POST", "/infer"), "SE", f"m{number}"))
        copied[number] = len(gateway.copies)
        gateway.copies.clear()
    assert set(copied.values()) == {0, 2}


RPC = Call(
    "POST",
    headers=((b"traceparent", b"00-a-b-01"),),
    body=service_pb2.ModelInferRequest(model_name="ranking", id="7").SerializeToString(),
    path=f"{SERVICE}ModelInfer",
    appended=parameter_fields([(b"Tidegate-Param-tidegate_traffic", b"real"), (b"Tidegate-Param-boost", b"2")]),
)


def test_a_unary_rpc_is_copied_without_decoding_it(gateway: Gateway) -> None:
    asyncio.run(gateway.infer(RPC, "US"))
    first, second = gateway.copies
    assert (first.path, first.address, first.primary.is_rpc) == (RPC.path, ("b1", 8001), True)
    assert second.address == ("c1", 8002)
    assert first.headers == RPC.headers
    assert first.body.startswith(RPC.body)
    read = service_pb2.ModelInferRequest.FromString(first.body)
    assert (read.model_name, read.model_version, read.id) == ("fresh", "2", "7")
    parameters = {name: each.string_param for name, each in read.parameters.items()}
    assert parameters == {"Tidegate-Param-tidegate_traffic": "shadow", "Tidegate-Param-boost": "2"}
    assert gateway.counts() == {"sampled": 2}


def test_an_rpc_whose_shadow_has_no_port_for_it_is_dropped(gateway: Gateway) -> None:
    gateway.rpc_ports = {"b1": 8001}
    asyncio.run(gateway.infer(RPC, "US"))
    assert [copy.pair.shadow for copy in gateway.copies] == ["fresh/2"]
    assert gateway.counts() == {"sampled": 2, "dropped: no endpoint": 1}


def test_an_rpc_is_left_out_where_copies_go_over_http_alone(gateway: Gateway) -> None:
    gateway.shadowing._rpc_port_of = None
    asyncio.run(gateway.infer(RPC, "US"))
    assert (gateway.copies, gateway.counts()) == ([], {"sampled": 2, "left out: grpc": 2})


async def _nothing() -> Any:
    for each in ():
        yield each


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (Call("POST", "/infer", sequence=Sequence("7")), "sequence"),
        (Call("POST", "/infer", rest=_nothing(), rest_bytes=1), "streamed"),
        (Call("POST", "/generate"), "streamed"),
        (Call("POST", path=f"{SERVICE}ModelStreamInfer", appended=b"", stream_above_bytes=0), "streamed"),
    ],
)
def test_what_a_shadow_must_not_get_is_left_out(gateway: Gateway, call: Call, reason: str) -> None:
    asyncio.run(gateway.infer(call, "US"))
    assert (gateway.copies, gateway.counts()) == ([], {"sampled": 2, f"left out: {reason}": 2})
    counts = {"sampled": 1, f"left out: {reason}": 1}
    assert gateway.pairs() == {("us", "ranker", each): counts for each in ("fresh/2", "popular")}


def test_a_pinned_request_is_left_out(gateway: Gateway) -> None:
    asyncio.run(gateway.infer(Call("POST", "/infer"), "US", pins=(b"popular",)))
    assert (gateway.copies, gateway.counts()) == ([], {"sampled": 2, "left out: pinned": 2})
    assert gateway.pairs() == {}, "what callers may pin is no pair of a rule"


def test_what_nobody_answered_is_left_out(gateway: Gateway) -> None:
    gateway.world.answers = {"a1": answer(503), "a2": answer(503)}
    asyncio.run(gateway.infer(Call("POST", "/infer"), "US"))
    assert (gateway.copies, gateway.counts()) == ([], {"sampled": 2, "left out: no answer": 2})
    assert gateway.pairs()["us", "ranker", "popular"] == {"sampled": 1, "left out: no answer": 1}


def test_what_is_not_taken_is_counted(gateway: Gateway) -> None:
    gateway.is_full = True
    asyncio.run(gateway.infer(Call("POST", "/infer"), "US"))
    asyncio.run(gateway.infer(Call("POST", "/infer"), "NO"))
    gateway.refuses = Drop.FAILING
    asyncio.run(gateway.infer(Call("POST", "/infer"), "US"))
    counts = {"sampled": 5, "dropped: memory": 2, "dropped: no endpoint": 1, "dropped: failing": 2}
    assert gateway.counts() == counts
    each = {"sampled": 2, "dropped: memory": 1, "dropped: failing": 1}
    assert gateway.pairs() == {
        ("us", "ranker", "fresh/2"): each,
        ("us", "ranker", "popular"): each,
        ("lost", "ranker", "lonely"): {"sampled": 1, "dropped: no endpoint": 1},
    }


def test_a_server_at_which_requests_wait_gets_no_copies(gateway: Gateway) -> None:
    """The one place of a model is taken, and then a request waits for another model of the same server."""

    async def work() -> None:
        place = gateway.dispatcher._places.place(gateway.world.directory.shards["c"][0], "popular")
        place.enter(gateway.world.now_s)
        await gateway.infer(Call("POST", "/infer"), "US")
        assert [copy.pair.shadow for copy in gateway.copies] == ["fresh/2"]
        place.leave(None, 0, gateway.world.now_s)
        other = gateway.dispatcher._places.place(gateway.world.directory.shards["c"][0], "other")
        other.enter(gateway.world.now_s)
        waiting = asyncio.create_task(other.wait("flow", 60.0, lambda: gateway.world.now_s))
        await asyncio.sleep(0)
        await gateway.infer(Call("POST", "/infer"), "US")
        assert [copy.pair.shadow for copy in gateway.copies] == ["fresh/2"] * 2
        other.leave(None, 0, gateway.world.now_s)
        await waiting

    asyncio.run(work())
    assert gateway.counts() == {"sampled": 4, "dropped: overloaded": 2}


def test_requests_neither_see_nor_wait_for_a_shadow_that_is_down(gateway: Gateway) -> None:
    """The endpoint of a shadow, which is also a fallback, is as healthy as requests found it."""
    asyncio.run(gateway.infer(Call("POST", "/infer"), "US"))
    assert gateway.dispatcher.open_breakers() == 0
    assert gateway.world.probes == []
