"""The limits of callers and objectives, in virtual time."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidegate.errors import LimitedError
from tidegate.gateway.quotas import MOST_PAIRS, Lease, Quotas, as_window
from tidegate.rules import Engine, compile_directory, load_bundle

S = 1_000_000_000


def rules(
    folder: Path, callers: Mapping[str, Any] | None, limits: Mapping[str, Any] | None = None, number: int = 0
) -> Engine:
    """Rules with the objectives `ranking` (with `limits`) and `search`."""
    root = folder / f"rules{number}"
    (root / "objectives").mkdir(parents=True)
    for name in ("ranking", "search"):
        objective: dict[str, Any] = {"objective": name, "rules": [{"id": "all", "serve": "m"}]}
        if limits is not None and name == "ranking":
            objective["limits"] = limits
        (root / "objectives" / f"{name}.yaml").write_text(json.dumps(objective))
    (root / "fleet.yaml").write_text(json.dumps({"shards": {"a": {}}, "models": {"m": {"shards": ["a"]}}}))
    if callers is not None:
        (root / "callers.yaml").write_text(json.dumps({"callers": callers}))
    return load_bundle(compile_directory(root))


class Gate:
    """Quotas on a clock that is set by hand."""

    def __init__(self, engine: Engine, shares: int = 1) -> None:
        self.now_ns = 0
        self.engine = engine
        self.quotas = Quotas(shares, lambda: self.now_ns)

    def ask(self, caller: str | None = "shop", objective: str = "ranking") -> Lease:
        engine = self.engine
        lease = Lease()
        who = None if caller is None or engine.callers is None else engine.callers[caller]
        self.quotas.acquire(engine, who, engine.objectives[objective], lease)
        return lease

    def admits(self, caller: str | None = "shop", objective: str = "ranking") -> bool:
        try:
            self.ask(caller, objective).release()
        except LimitedError:
            return False
        return True


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Mapping[tuple[float, int], Engine]:
    pairs = [(rate, burst) for rate in (0.3, 2.5, 333) for burst in (1, 50)]
    return {
        (rate, burst): rules(
            tmp_path_factory.mktemp("rules"), {"shop": {"objectives": "*", "rate_per_s": rate, "burst": burst}}
        )
        for rate, burst in pairs
    }


@settings(deadline=None)
@given(data=st.data())
def test_no_more_than_the_rate_and_the_burst_pass(engines: Mapping[tuple[float, int], Engine], data: Any) -> None:
    rate, burst = data.draw(st.sampled_from(sorted(engines)))
    gate = Gate(engines[rate, burst])
    gaps = st.one_of(st.integers(0, 3), st.integers(0, int(3 * S / rate)), st.just(-(-S // rate) if rate >= 1 else 0))
    admitted: list[int] = []
    for gap in data.draw(st.lists(gaps, max_size=120)):
        gate.now_ns += int(gap)
        if gate.admits():
            admitted.append(gate.now_ns)
        else:
            assert admitted, "the first request always passes"
    for first in range(len(admitted)):
        for last in range(first, len(admitted)):
            passed, within_s = last - first + 1, (admitted[last] - admitted[first]) / S
            assert passed <= rate * within_s + burst + 1e-6


@pytest.mark.parametrize("rate", [0.3, 2.5, 333])
def test_a_steady_caller_at_its_rate_is_never_refused(engines: Mapping[tuple[float, int], Engine], rate: float) -> None:
    gate = Gate(engines[rate, 1])
    for _ in range(1000):
        assert gate.admits()
        gate.now_ns += -int(-S // rate)


@settings(deadline=None, max_examples=50)
@given(steps=st.lists(st.tuples(st.booleans(), st.sampled_from(["shop", "bar"]), st.integers(0, 9)), max_size=80))
def test_the_concurrency_is_never_exceeded_and_leases_balance(
    narrow: Engine, steps: list[tuple[bool, str, int]]
) -> None:
    gate = Gate(narrow)
    held: list[tuple[str, Lease]] = []
    for comes, caller, which in steps:
        if comes:
            with contextlib.suppress(LimitedError):
                held.append((caller, gate.ask(caller)))
        elif held:
            _, lease = held.pop(which % len(held))
            lease.release()
            lease.release()
        shop = sum(name == "shop" for name, _ in held)
        assert shop <= 2
        assert len(held) <= 3
    for _, lease in held:
        lease.release()
    leases = [gate.ask("shop"), gate.ask("shop"), gate.ask("bar")]
    assert not gate.admits("bar")
    for lease in leases:
        lease.release()
    assert gate.admits("bar")


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    callers = {"shop": {"objectives": "*", "limits": {"ranking": {"concurrency": 2}}}, "bar": {"objectives": "*"}}
    return rules(tmp_path_factory.mktemp("rules"), callers, {"concurrency": 3})


def test_each_limit_is_named_with_what_it_allows(tmp_path: Path) -> None:
    callers = {
        "rate": {"objectives": "*", "rate_per_s": 2.5, "burst": 1},
        "slots": {"objectives": "*", "concurrency": 1},
        "pair": {"objectives": "*", "rate_per_s": 100, "limits": {"ranking": {"rate_per_s": 1}}},
        "free": {"objectives": "*"},
    }
    gate = Gate(rules(tmp_path, callers, {"rate_per_s": 4}))
    found = {}
    for name in callers:
        with pytest.raises(LimitedError) as error:
            for _ in range(9):
                gate.ask(name)
        found[name] = (error.value.limit, error.value.quota, error.value.window_s, error.value.retry_after_s)
    assert found == {
        "rate": ("caller-rate", 5, 2, 1),
        "slots": ("caller-concurrency", 1, None, 1),
        "pair": ("caller-objective-rate", 1, 1, 1),
        "free": ("objective-rate", 4, 1, 1),
    }
    assert gate.admits("pair", "search"), "a limit for one objective does not limit another"


def test_a_refused_request_uses_up_nothing(tmp_path: Path) -> None:
    callers = {"shop": {"objectives": "*", "rate_per_s": 1, "burst": 10}, "bar": {"objectives": "*"}}
    gate = Gate(rules(tmp_path, callers, {"concurrency": 1}))
    busy = gate.ask("bar")
    assert not any(gate.admits("shop") for _ in range(50))
    busy.release()
    assert sum(gate.admits("shop") for _ in range(50)) == 10


def test_a_publish_refills_nothing_and_keeps_what_is_under_way(tmp_path: Path) -> None:
    def version(number: int, **caller: Any) -> Engine:
        return rules(tmp_path, {"shop": {"objectives": "*", **caller}}, number=number)

    gate = Gate(version(0, rate_per_s=1, burst=10, concurrency=2))
    assert sum(gate.admits() for _ in range(20)) == 10
    gate.engine = version(1, rate_per_s=1, burst=10, concurrency=2)
    assert not gate.admits()
    gate.engine = version(2, rate_per_s=10, burst=10, concurrency=2)
    assert not gate.admits(), "a higher rate fills the bucket faster from now on, and not in retrospect"
    gate.now_ns += S // 10
    first = gate.ask()
    gate.engine = version(3, rate_per_s=100, burst=5)
    gate.now_ns += S
    gate.ask().release()
    gate.engine = version(4, concurrency=1)
    assert not gate.admits(), "the first request is still under way"
    first.release()
    assert gate.admits()


def test_what_is_kept_is_bounded_by_the_callers_in_the_file(tmp_path: Path) -> None:
    gate = Gate(rules(tmp_path, {f"c{n}": {"objectives": "*", "rate_per_s": 1} for n in range(100)}))
    for n in range(100):
        assert gate.admits(f"c{n}")
    gate.engine = rules(tmp_path, {"shop": {"objectives": "*", "rate_per_s": 1}}, number=1)
    gate.now_ns += 2 * S
    assert gate.admits()
    assert len(gate.quotas._quotas) == 1


def test_without_limits_nothing_is_kept(tmp_path: Path) -> None:
    gate = Gate(rules(tmp_path, None))
    assert gate.admits(None)
    assert not gate.quotas._quotas


def test_processes_that_share_a_rate_let_pass_their_share(tmp_path: Path) -> None:
    gate = Gate(rules(tmp_path, {"shop": {"objectives": "*", "rate_per_s": 100, "burst": 50}}), shares=10)
    admitted = 0
    for _ in range(10_000):
        gate.now_ns += S // 1000
        admitted += gate.admits()
    assert 100 <= admitted <= 105


def test_processes_that_share_a_concurrency_serve_their_share_of_the_time(tmp_path: Path) -> None:
    gate = Gate(rules(tmp_path, {"shop": {"objectives": "*", "concurrency": 2}}), shares=10)
    busy_ns = 0
    while gate.now_ns < 100 * S:
        try:
            lease = gate.ask()
        except LimitedError:
            gate.now_ns += S // 100
            continue
        gate.now_ns += S // 20
        busy_ns += S // 20
        lease.release()
    assert busy_ns == pytest.approx(0.2 * gate.now_ns, rel=0.1)


@pytest.mark.parametrize(("concurrency", "shares", "admitted"), [(10, 2, 5), (10, 3, 4), (2, 10, 1)])
def test_processes_that_share_a_concurrency_have_no_more_than_their_share_under_way(
    tmp_path: Path, concurrency: int, shares: int, admitted: int
) -> None:
    gate = Gate(rules(tmp_path, {"shop": {"objectives": "*", "concurrency": concurrency}}), shares)
    leases = [gate.ask() for _ in range(admitted)]
    assert not gate.admits()
    leases[0].release()
    assert gate.admits()


@pytest.mark.parametrize(
    ("rate", "window"),
    [(500, (500, 1)), (2.5, (5, 2)), (0.5, (1, 2)), (0.001, (1, 1000)), (1 / 3, (1, 3)), (7.77, (466, 60))],
)
def test_a_rate_as_a_window(rate: float, window: tuple[int, int]) -> None:
    assert as_window(rate) == window


def test_many_callers_take_bounded_memory_and_keep_their_limits(tmp_path: Path) -> None:
    callers = {f"caller-{number}": {"objectives": "*", "rate_per_s": 1} for number in range(MOST_PAIRS // 2 + 100)}
    gate = Gate(rules(tmp_path, callers))
    assert all(gate.admits(name, "ranking") for name in callers)
    assert not any(gate.admits(name, "search") for name in callers)
    assert len(gate.quotas._applying) <= MOST_PAIRS
    assert not any(gate.admits(name, "ranking") for name in callers)
