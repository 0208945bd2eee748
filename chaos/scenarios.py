"""The harms. Each harms it, repairs it or waits until it has repaired itself, and says when."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

from chaos.place import PREFERRED, Place, write_rules
from tests.support.stack import eventually

LASTS_S = 5.0
"""How long a harm lasts that the stack cannot repair."""

POINTER = "live/pointer.json"
HOUR_S = 3600.0


AnyPlace = TypeVar("AnyPlace", bound=Place)


@dataclass(frozen=True, slots=True)
class Scenario(Generic[AnyPlace]):
    """One harm.

    Attributes:
        text: what happens, for the report.
        harm: does it, and returns when the preferred target could serve again, in seconds of the monotonic clock.
        cuts_off: whether it ends what carries the requests, so that connections end, and nothing worse.
    """

    text: str
    harm: Callable[[AnyPlace], float]
    cuts_off: bool = False


def _kill_endpoint(place: Place) -> float:
    return _kill(place, place.servers("a")[:1])


def _terminate_endpoint(place: Place) -> float:
    killed = place.servers("a")[:1]
    place.signal(killed, signal.SIGTERM)
    return place.wait_ready(but=frozenset(killed))


def _stop_endpoint(place: Place) -> float:
    stopped = place.servers("a")[:1]
    place.signal(stopped, signal.SIGSTOP)
    return place.wait_ready(but=frozenset(stopped))


def _pause_endpoint(place: Place) -> float:
    with stopped(place, place.servers("a")[:1]):
        time.sleep(2.0)
    return time.monotonic()


def _kill_shard(place: Place) -> float:
    return _kill(place, place.servers("a"))


def _stop_shard(place: Place) -> float:
    stopped = place.servers("a")
    place.signal(stopped, signal.SIGSTOP)
    return place.wait_ready({"a": 1}, frozenset(stopped))


def _kill_all_but_one(place: Place) -> float:
    return _kill(place, place.servers("a") + place.servers("b")[:1])


def _kill(place: Place, servers: list[int]) -> float:
    before = {*place.servers("a")}
    place.signal(servers, signal.SIGKILL)
    gone = frozenset(servers)
    return time.monotonic() if before - gone else place.wait_ready({"a": 1}, gone)


def _unload(place: Place) -> float:
    for endpoint in place.stack.fleet()["a"]:
        place.stack.unload(endpoint["url"], PREFERRED)

    def loaded() -> bool:
        return all(f"{PREFERRED}/1" in models for models in place.stack.models("a"))

    assert eventually(loaded, most_s=0.2), "the model is not loaded again"
    return time.monotonic()


def _misbehave(mode: str) -> Callable[[Place], float]:
    def harm(place: Place) -> float:
        place.set_mode(mode)
        time.sleep(LASTS_S)
        place.set_mode("sound")
        return place.wait_served()

    return harm


def stop_store(place: Place) -> float:
    with stopped(place, [place.store()]):
        time.sleep(LASTS_S)
    return time.monotonic()


def kill_store(place: Place) -> float:
    killed = place.store()
    os.kill(killed, signal.SIGKILL)

    def again() -> bool:
        fleet = place.stack.get("/v1/fleet")
        return bool(fleet["healthy"]) and place.store() != killed

    assert eventually(again, most_s=0.5), "the store does not run again"
    return time.monotonic()


def _corrupt_store(place: Place) -> float:
    s3, bucket = place.bucket()
    whole = s3.get_object(Bucket=bucket, Key=POINTER)["Body"].read()
    s3.put_object(Bucket=bucket, Key=POINTER, Body=whole[: len(whole) // 2])
    time.sleep(LASTS_S)
    s3.put_object(Bucket=bucket, Key=POINTER, Body=whole)
    return time.monotonic()


def swap_rules(times: int) -> Callable[[Place], float]:
    """Return a harm that publishes `times` revisions, each once the one before it is live."""

    def harm(place: Place) -> float:
        for number in range(times):
            before = place.revision()
            write_rules(place.root / "rules", top_k=number + 1 + int(time.time()))
            assert eventually(partial(place.is_live_after, before), most_s=0.5), "the rules do not go live"
        return time.monotonic()

    return harm


def _set_clock_back(place: Place) -> float:
    place.set_clock(-HOUR_S)
    try:
        time.sleep(LASTS_S)
        return swap_rules(1)(place)
    finally:
        place.set_clock(0.0)


@contextmanager
def stopped(place: Place, pids: list[int]) -> Iterator[None]:
    place.signal(pids, signal.SIGSTOP)
    try:
        yield
    finally:
        place.signal(pids, signal.SIGCONT)


SCENARIOS: dict[str, Scenario[Place]] = {
    "endpoint-killed": Scenario("SIGKILL of one of the target's two servers", _kill_endpoint),
    "endpoint-terminated": Scenario("SIGTERM of one of them, which another replaces", _terminate_endpoint),
    "endpoint-hung": Scenario("SIGSTOP of one of them for good: its socket accepts and never answers", _stop_endpoint),
    "endpoint-paused": Scenario("SIGSTOP of one of them for two seconds", _pause_endpoint),
    "shard-killed": Scenario("SIGKILL of every server of the target's shard", _kill_shard),
    "shard-hung": Scenario("SIGSTOP of every server of the target's shard", _stop_shard),
    "all-but-one": Scenario("SIGKILL of every server but one of the fallback's", _kill_all_but_one),
    "model-unloaded": Scenario("the model unloaded on every server behind the control plane's back", _unload),
    "model-sleeps": Scenario("every request of the model hangs", _misbehave("sleep")),
    "model-exits": Scenario("every request ends the process of the model", _misbehave("exit")),
    "model-fails": Scenario("the model answers 500 to every request", _misbehave("error")),
    "model-nan": Scenario("the model answers NaN", _misbehave("nan")),
    "store-hung": Scenario("SIGSTOP of S3 and DynamoDB", stop_store),
    "store-killed": Scenario("SIGKILL of S3 and DynamoDB, which lose everything", kill_store),
    "store-corrupt": Scenario("half of the pointer to the live revision is missing", _corrupt_store),
    "rules-swapped": Scenario("100 revisions of the rules published, one after the other", swap_rules(100)),
    "clock-back": Scenario(
        "the wall clock of Tidegate's processes set back by an hour, and a publish", _set_clock_back
    ),
}
