"""How a step looks facts up: batches, the cache, the time-out, and what it answers without."""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tidegate.aws.facts import seed_facts
from tidegate.aws.provision import provision_facts
from tidegate.aws.fact_files import FactFile

from tests.support.aws import LocalAws, closed_port, silent_server
from tests.support.examples import MODELS

STEP = MODELS / "title_history" / "1"


@pytest.fixture(scope="module")
def step() -> Iterator[Any]:
    """The step's modules `facts` and `facts_config`, imported as a stub does, but for the bytecode."""
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    sys.path.insert(0, str(STEP))
    try:
        yield importlib.import_module("facts"), importlib.import_module("facts_config")
    finally:
        sys.dont_write_bytecode = before
        sys.path.remove(str(STEP))
        for name in ("facts", "facts_config"):
            del sys.modules[name]


class Table:
    """A DynamoDB that holds facts in memory, gives keys back and fails as it is told, and keeps what it was asked."""

    def __init__(self, values: Mapping[str, str], gives_back: Callable[[int], int] = lambda _: 0) -> None:
        self.values = dict(values)
        self.gives_back = gives_back
        self.asked: list[list[str]] = []
        self.error: Exception | None = None
        self.held: threading.Event | None = None

    def batch_get_item(self, RequestItems: Mapping[str, Any]) -> Any:
        ((table, request),) = RequestItems.items()
        keys = request["Keys"]
        assert 0 < len(keys) <= 100
        assert len({key["pk"]["S"] for key in keys}) == len(keys)
        self.asked.append([key["pk"]["S"] for key in keys])
        if self.held is not None:
            self.held.wait(10)
        if self.error is not None:
            raise self.error
        count = self.gives_back(len(self.asked))
        found = [key for key in keys[: len(keys) - count] if key["pk"]["S"] in self.values]
        items = [{"pk": key["pk"], "value": {"S": self.values[key["pk"]["S"]]}} for key in found]
        back = {table: {"Keys": keys[len(keys) - count :]}} if count else {}
        return {"Responses": {table: items}, "UnprocessedKeys": back}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def made(step: Any) -> Iterator[Callable[..., Any]]:
    """Makes facts over a table; they are closed after the test."""
    open_facts = []

    def make(table: Any, clock: Clock | None = None, **options: Any) -> Any:
        config = step[1].FactsConfig("likes", "facts", timeout_ms=options.pop("timeout_ms", 5000), **options)
        open_facts.append(step[0].Facts(config, table, json.loads, clock or Clock()))
        return open_facts[-1]

    yield make
    for each in open_facts:
        each.close()


def counts(found: Any) -> tuple[int, int, int, int, int]:
    return found.cached, found.read, found.absent, found.stale, found.degraded


def keys(*numbers: int) -> list[bytes]:
    return [str(number).encode() for number in numbers]


def test_all_keys_are_read_together_once_each(made: Callable[..., Any]) -> None:
    table = Table({str(number): str(number) for number in range(250)})
    found = made(table).find(keys(*range(240), *range(10, 300)))
    assert found.values == {key: int(key) for key in keys(*range(250))}
    assert counts(found) == (0, 250, 50, 0, 0)
    assert sorted(map(len, table.asked)) == [100, 100, 100]


def test_keys_that_are_given_back_are_read_again(made: Callable[..., Any]) -> None:
    table = Table({str(number): str(number) for number in range(9)}, lambda call: 3 if call < 3 else 0)
    found = made(table).find(keys(*range(10)))
    assert counts(found) == (0, 9, 1, 0, 0)
    assert list(map(len, table.asked)) == [10, 3, 3]


def test_what_is_given_back_for_too_long_is_answered_without(made: Callable[..., Any]) -> None:
    clock = Clock()

    def one_back(_: int) -> int:
        clock.now += 1
        return 1

    found = made(Table({"1": "1", "2": "2"}, one_back), clock, timeout_ms=2500).find(keys(1, 2))
    assert (dict(found.values), counts(found)) == ({b"1": 1}, (0, 1, 0, 0, 1))
    assert found.reason == "DynamoDB gave keys back until the time was over"


def test_the_cache_keeps_facts_and_their_absence_for_a_while(made: Callable[..., Any]) -> None:
    table, clock = Table({"1": "1"}), Clock()
    facts = made(table, clock, cache_ttl_s=60)
    assert counts(facts.find(keys(1, 2))) == (0, 1, 1, 0, 0)
    table.values = {"1": "10", "2": "20"}
    clock.now += 59
    assert (dict(facts.find(keys(1, 2)).values), len(table.asked)) == ({b"1": 1}, 1)
    clock.now += 2
    assert dict(facts.find(keys(1, 2)).values) == {b"1": 10, b"2": 20}
    assert len(table.asked) == 2


def test_the_cache_drops_what_was_used_least_recently(made: Callable[..., Any]) -> None:
    table = Table({str(number): str(number) for number in range(9)})
    facts = made(table, cache_size=3)
    facts.find(keys(1, 2, 3))
    facts.find(keys(1))
    facts.find(keys(4))
    assert counts(facts.find(keys(1, 3, 4))) == (3, 0, 0, 0, 0)
    assert counts(facts.find(keys(2))) == (0, 1, 0, 0, 0)
    facts.find(keys(*range(9)))
    assert len(facts.find(keys(*range(9))).values) == 9


def test_a_failure_is_answered_with_what_was_read_before_and_said_without_keys(made: Callable[..., Any]) -> None:
    table, clock = Table({"1": "1"}), Clock()
    facts = made(table, clock, cache_ttl_s=60)
    facts.find(keys(1))
    clock.now += 61
    table.error = RuntimeError("member 1 is secret")
    found = facts.find(keys(1, 2))
    assert (dict(found.values), counts(found), found.reason) == ({b"1": 1}, (0, 0, 0, 1, 1), "RuntimeError")
    table.error = None
    assert counts(facts.find(keys(1, 2))) == (0, 1, 1, 0, 0)


def test_an_outage_stops_reads_for_a_while(made: Callable[..., Any]) -> None:
    table, clock = Table({"1": "1"}), Clock()
    facts = made(table, clock)
    table.error = OSError()
    reasons = [facts.find(keys(1)).reason for _ in range(5)]
    assert reasons == ["OSError"] * 3 + ["paused after failures"] * 2
    table.error = None
    clock.now += 1.1
    assert dict(facts.find(keys(1)).values) == {b"1": 1}


def test_a_table_that_does_not_answer_costs_the_time_out_and_no_more(made: Callable[..., Any]) -> None:
    table = Table({"1": "1"})
    table.held = threading.Event()
    found = made(table, timeout_ms=20).find(keys(1))
    table.held.set()
    assert (counts(found), found.reason) == ((0, 0, 0, 0, 1), "no answer in time")


def test_keys_that_no_table_can_have_are_not_asked_for(made: Callable[..., Any]) -> None:
    table = Table({"1": "1"})
    found = made(table).find([b"", b"\xff", b"k" * 2049, b"1", "é".encode()])
    assert counts(found) == (0, 1, 4, 0, 0)
    assert table.asked == [["1", "é"]]
    assert counts(made(table).find([b""])) == (0, 0, 1, 0, 0)


def test_a_malformed_fact_counts_as_unreadable_and_spoils_no_other(made: Callable[..., Any]) -> None:
    found = made(Table({"1": "1", "2": "nonsense", "3": "[" * 100_000})).find(keys(1, 2, 3))
    assert (dict(found.values), counts(found), found.reason) == ({b"1": 1}, (0, 1, 0, 0, 2), "2 malformed")


def test_real_reads_of_seeded_facts(
    facts: LocalAws, step: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    file = tmp_path / "likes.jsonl"
    file.write_text("".join(f'{{"key": "{number}", "value": [{number}]}}\n' for number in range(130)))
    asyncio.run(provision_facts(facts.clients(), "looked-up"))
    asyncio.run(seed_facts(facts.clients(), "looked-up", [FactFile("likes", file)]))
    config = step[1].FactsConfig("likes", "looked-up", facts.url, "us-east-1", timeout_ms=10_000)
    reader = step[0].Facts(config, step[1].dynamodb(config), json.loads)
    assert reader.warm_up(step[1].dynamodb(config, 10_000)) == ""
    found = reader.find([*keys(*range(140)), b"", "é".encode()])
    assert found.values == {key: [int(key)] for key in keys(*range(130))}
    assert counts(found) == (0, 130, 12, 0, 0)
    reader.close()


def test_a_table_that_refuses_is_silent_or_missing_is_said_by_kind(
    facts: LocalAws, step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    with closed_port() as closed, silent_server() as silent:
        for url, timeout_ms, told in (
            (facts.url, 10_000, {"ResourceNotFoundException"}),
            (closed, 1000, {"EndpointConnectionError"}),
            (silent, 100, {"ReadTimeoutError", "no answer in time"}),
        ):
            config = step[1].FactsConfig("likes", "missing", url, "us-east-1", timeout_ms=timeout_ms)
            reader = step[0].Facts(config, step[1].dynamodb(config), json.loads)
            found = reader.find([b"1"])
            assert (counts(found), found.reason in told) == ((0, 0, 0, 0, 1), True), found.reason
            reader.close()


def test_the_configuration_is_the_models_then_the_processs_then_the_usual(step: Any) -> None:
    read = step[1].FactsConfig.read
    environment = {
        "TIDEGATE_FACTS_TABLE": "facts",
        "TIDEGATE_AWS_ENDPOINT_URL": "http://127.0.0.1:1",
        "TIDEGATE_FACTS_TIMEOUT_MS": "200",
        "AWS_REGION": "eu-west-1",
    }
    own = {"facts": "likes", "facts_table": "own", "facts_timeout_ms": "5", "facts_cache_size": "7"}
    usual = read({}, {"TIDEGATE_FACTS_TABLE": "t"})
    assert (usual.endpoint_url, usual.region, usual.timeout_ms, usual.cache_ttl_s) == (None, None, 50, 60)
    assert read({"facts": "likes"}, environment) == step[1].FactsConfig(
        "likes", "facts", "http://127.0.0.1:1", "eu-west-1", 200
    )
    mixed = read(own, environment)
    assert (mixed.table, mixed.timeout_ms, mixed.cache_size) == ("own", 5, 7)


def test_a_configuration_that_cannot_work_is_told(step: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    error, read = step[1].FactsError, step[1].FactsConfig.read
    with pytest.raises(error, match="no table is named: set TIDEGATE_FACTS_TABLE"):
        read({}, {})
    with pytest.raises(error, match="facts_timeout_ms must be a number from 1 to 60000, not 'soon'"):
        read({"facts_table": "t"}, {"TIDEGATE_FACTS_TIMEOUT_MS": "soon"})
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for config in (
        step[1].FactsConfig("likes", "t", "no address", "us-east-1"),
        step[1].FactsConfig("likes", "t", None, "no region!"),
    ):
        with pytest.raises(error, match="no client of DynamoDB can be made"):
            step[1].dynamodb(config)
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(error, match=r"boto3 cannot be imported .*pip install boto3"):
        step[1].dynamodb(step[1].FactsConfig("likes", "t"))
